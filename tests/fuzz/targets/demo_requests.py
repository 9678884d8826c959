"""HTTP requests to the demo's page: what comes through one connection, bodies of pictures and of JSON included."""

from __future__ import annotations

import io
import json
import logging
import random
from functools import cache
from typing import Any, Final

import torch

from learners.demo.replies import page_files
from learners.demo.server import DemoHandler, DemoServer
from learners.demo.service import DemoService
from learners.demo.sessions import PageSession
from learners.methods.catalogue import describe_learner, make_learner
from learners.use.classifier import Learner
from tests.fuzz.json_mutations import mutate_json
from tests.fuzz.mutations import mutate_bytes
from tests.images import jpeg_bytes, make_image

PORT: Final = 8000
SESSION: Final = "session"
SIZE: Final = 32  # pixels
HEADERS: Final = {"Host": f"127.0.0.1:{PORT}", "X-Session": SESSION, "X-Key": "key"}
CLASSES: Final = {"classes": [{"name": "ant", "pictures": ["1", "2"]}, {"name": "bee", "pictures": ["3"]}]}
PLAIN_SHARE: Final = 0.5  # of inputs, whose bytes are changed and not the JSON in them


class RecordedConnection:
    """The socket of a browser that has sent everything already."""

    def __init__(self, data: bytes) -> None:
        self._sent = io.BytesIO(data)
        self.received = io.BytesIO()

    def recv_into(self, buffer: Any) -> int:
        return self._sent.readinto(buffer)

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO()

    def sendall(self, data: bytes) -> None:
        self.received.write(data)

    def setsockopt(self, *_: object) -> None:
        """Nothing to set."""

    def settimeout(self, _: float | None) -> None:
        """Nothing to wait for."""


@cache
def demo_server() -> DemoServer:
    """A server that listens nowhere."""
    torch.set_num_threads(1)
    logging.getLogger("learners.demo.server").setLevel(logging.CRITICAL)
    server = DemoServer.__new__(DemoServer)
    server.server_address = ("127.0.0.1", PORT)
    server.files, server.key = page_files(), "key"
    net = make_learner("protonets", "conv4", seed=1)
    server.service = DemoService(Learner.of(net, describe_learner(net, "protonets", SIZE), "cpu"))
    return server


def open_page(server: DemoServer) -> None:
    """One page with three pictures, whatever the input before did."""
    session = PageSession()
    for number in range(3):
        session.add(make_image(number).resize((SIZE, SIZE)))
    server.service.sessions._open.clear()
    server.service.sessions._open[SESSION] = session


def request(method: str, path: str, body: bytes = b"", **more: str) -> bytes:
    headers = {**HEADERS, **more, "Content-Length": str(len(body))}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def seeds() -> list[bytes]:
    adapt = request("POST", "/api/adapt", json.dumps(CLASSES).encode())
    classify = request("POST", "/api/classify", json.dumps({"pictures": ["1", "3"]}).encode())
    return [
        request("GET", "/?key=key"),
        request("POST", "/api/session", Origin=f"http://127.0.0.1:{PORT}"),
        request("POST", "/api/pictures", jpeg_bytes(1)),
        adapt + classify,
        adapt + request("GET", "/api/classifier"),
        classify,
        request("DELETE", "/api/pictures/2") + adapt,
        b"GET /\r\n\r\n",
        b"POST /api/pictures HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5\r\nhello\r\n",
    ]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Change the JSON at the end of an input, with its length, or bytes anywhere."""
    head, _, body = data.rpartition(b"\r\n\r\n")
    if generator.random() < PLAIN_SHARE:
        return mutate_bytes(data, generator)
    try:
        changed = json.dumps(mutate_json(json.loads(body), generator)).encode()
    except (ValueError, RecursionError):
        return mutate_bytes(data, generator)
    length = b"Content-Length: %d"
    return head.replace(length % len(body), length % len(changed)) + b"\r\n\r\n" + changed


def check(data: bytes) -> None:
    server, connection = demo_server(), RecordedConnection(data)
    open_page(server)
    DemoHandler(connection, ("127.0.0.1", 1), server)  # type: ignore[arg-type]
    received = connection.received.getvalue()
    assert b"HTTP/1.1 500 " not in received, received[-300:]
    assert all(len(page.images) <= 3 + len(data) for page in server.service.sessions._open.values())
