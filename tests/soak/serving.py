"""The demo page under a soak: conversations, cut connections, and the server's end by Ctrl-C or SIGKILL."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Final

from benchmarks.common import ROOT
from benchmarks.kill import wait_until_gone
from tests.learners.demo.serving import CLASS_COLOURS, PageClient, query_file
from tests.soak.disturbed import END_SECONDS, SoakFailure

ADDRESS_LINE: Final = re.compile(r"http://(127\.0\.0\.1:\d+)/\?key=(\S+)")


class SoakServer:
    """A `learners.demo` in a process of its own."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | environment, start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], END_SECONDS)
        line = self.process.stdout.readline() if ready else ""
        match = ADDRESS_LINE.search(line)
        if not match:
            self.process.kill()
            raise SoakFailure(f"the page does not start: {line}{self.process.communicate()[1]}")
        self.host, self._key = match.groups()

    def converse(self, photos: Path) -> list[list[float]]:
        """Adapt to three classes and classify an image of each; the probabilities."""
        page = PageClient(SimpleNamespace(hosts=(self.host,), key=self._key))  # type: ignore[arg-type]
        page.adapt_to(photos)
        names = [page.add(query_file(photos, name).read_bytes()) for name in CLASS_COLOURS]
        status, answer = page.ask("POST", "/api/classify", {"pictures": names})
        page.connection.close()
        if status != 200:
            raise SoakFailure(f"the page answers {status}: {answer}")
        probabilities: list[list[float]] = answer["probabilities"]
        return probabilities

    def interrupt_requests(self, dice: random.Random) -> None:
        """Cut some connections in the middle of a request or of its answer."""
        name, port = self.host.split(":")
        for _ in range(dice.randint(1, 5)):
            with suppress(OSError), socket.create_connection((name, int(port)), timeout=5) as connection:
                request = (
                    b"POST /api/pictures HTTP/1.1\r\nHost: %b\r\nContent-Length: 5000\r\n\r\n"
                    % self.host.encode()
                )
                connection.send((request + dice.randbytes(5000))[: dice.randint(1, len(request) + 5000)])

    def end(self, kind: signal.Signals) -> None:
        """End the server; Ctrl-C ends it with 0 and without a word on stderr."""
        self.process.send_signal(kind)
        _, errors = self.process.communicate(timeout=END_SECONDS)
        wait_until_gone(self.process.pid)
        if kind == signal.SIGINT and (self.process.returncode or errors):
            raise SoakFailure(f"the page ended with {self.process.returncode}: {errors}")
