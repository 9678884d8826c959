"""Serve the demo in a thread, and talk to it as a page does, without a browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
from PIL import Image

from learners.demo.server import DemoServer
from learners.demo.service import DemoService
from learners.use.classifier import Learner

DEMO_SIZE = 32
CLASS_COLOURS = {"ruby": (200, 30, 40), "leaf": (40, 170, 60), "sky": (60, 90, 210)}


def write_photos(root: Path) -> Path:
    """Six images of each colour, in folders; each is a little different."""
    for at, (name, colour) in enumerate(CLASS_COLOURS.items()):
        (root / name).mkdir(parents=True)
        for number in range(6):
            noise = np.random.default_rng(10 * at + number).normal(0, 20, (48, 64, 3))
            pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name} {number}.jpg")
    return root


@contextmanager
def served(learner: Learner) -> Iterator[DemoServer]:
    with DemoServer(0) as server:
        server.service = DemoService(learner)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class PageClient:
    """The connection of one page."""

    def __init__(self, server: DemoServer) -> None:
        self.connection = HTTPConnection(server.hosts[0], timeout=30)
        self.session = ""
        self.session = self.ask("POST", "/api/session", X_Key=server.key)[1]["session"]

    def raw(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[int, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, body, {"X-Session": self.session, **named})
        with self.connection.getresponse() as answer:
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            return answer.status, answer.read()

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
        data = body if isinstance(body, bytes | str | None) else json.dumps(body)
        status, answer = self.raw(method, path, data, **headers)
        return status, json.loads(answer)

    def add(self, data: bytes) -> str:
        status, answer = self.ask("POST", "/api/pictures", data)
        assert (status, answer["thumbnail"][:23]) == (201, "data:image/jpeg;base64,")
        return str(answer["picture"])

    def adapt_to(self, photos: Path) -> dict[str, Any]:
        """Adapt to five images of each colour."""
        classes = [
            {"name": name, "pictures": [self.add(file.read_bytes()) for file in support_files(photos, name)]}
            for name in CLASS_COLOURS
        ]
        status, answer = self.ask("POST", "/api/adapt", {"classes": classes})
        assert (status, answer["classes"]) == (200, [*CLASS_COLOURS])
        return answer


def support_files(photos: Path, name: str) -> list[Path]:
    return sorted((photos / name).iterdir())[:5]


def query_file(photos: Path, name: str) -> Path:
    return photos / name / f"{name} 5.jpg"
