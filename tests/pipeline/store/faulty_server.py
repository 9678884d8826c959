"""A web server over a folder, with byte ranges, that answers a share of requests with faults.

Whether it does is a function of the file, the range and how often that was requested, so that a test
sees as many faults whatever its threads do; the kinds take turns.
"""

from __future__ import annotations

import socket
import threading
import zlib
from collections import Counter
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from tests.pipeline.store.http_faults import HTTP_FAULTS, FaultHandler

FAULTS: Final = ("500", "503", "429", "reset", "stall", "short", "wrong")


class FaultyHandler(FaultHandler):
    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def do_GET(self) -> None:  # noqa: N802 - http.server wants this name
        path = self.server.root / unquote(self.path).strip("/")
        if path.is_dir():
            self.answer(200, self.listing(path), Content_Type="text/html")
        elif not path.is_file():
            self.answer(404, b"no such file")
        else:
            self.file(path)

    def listing(self, path: Path) -> bytes:
        names = [f"{child.name}/" if child.is_dir() else child.name for child in path.iterdir()]
        links = (f'<a href="{name}">{name}</a>' for name in names)
        return "\n".join(links if self.server.lists else []).encode()

    def file(self, path: Path) -> None:
        asked = self.headers.get("Range", "")
        fault = self.server.fault(path.relative_to(self.server.root).as_posix(), asked)
        data = path.read_bytes()
        if fault == "whole" or not asked:
            self.answer_with_fault(200, data, fault)
            return
        begin, last = map(int, asked.removeprefix("bytes=").split("-"))
        part = data[begin : last + 1]
        self.answer_with_fault(206 if part else 416, part, fault)

    def answer_with_fault(self, status: int, data: bytes, fault: str) -> None:
        if fault.isdigit():
            self.answer(int(fault), b"try again")
        elif fault in HTTP_FAULTS:
            HTTP_FAULTS[fault](self, status, data)
        else:
            self.answer(status, data)

    def log_message(self, *_: object) -> None:
        """Tests print nothing."""


class FaultyServer(ThreadingHTTPServer):
    """Use it as a context; `url` is its root."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, root: Path, *, share: float = 0.0, kinds: tuple[str, ...] = FAULTS) -> None:
        super().__init__(("127.0.0.1", 0), FaultyHandler)
        self.root = root
        self.share = share
        self.kinds = kinds
        self.lists = True
        self.most = 4
        """Drawn faults of one range: fewer than the retries that the tests allow."""
        self.always: dict[str, str] = {}
        """A fault for every request of the files whose path contains the key."""
        self.asked: Counter[tuple[str, str]] = Counter()
        """How often each range of each file was requested."""
        self.made: Counter[str] = Counter()
        """The faults made."""
        self.sent = 0
        """Bytes of answers without end."""
        self.connections: set[socket.socket] = set()
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._serial = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self, part: str = ".tar") -> list[tuple[str, str]]:
        """The requested files and ranges, of files whose path contains this."""
        return [name for name in self.asked.elements() if part in name[0]]

    def next_serial(self) -> int:
        with self._lock:
            self._serial += 1
            return self._serial

    def fault(self, path: str, asked: str) -> str:
        with self._lock:
            attempt = self.asked[path, asked]
            self.asked[path, asked] += 1
            fault = next((kind for part, kind in self.always.items() if part in path), "")
            draw = zlib.crc32(f"{path} {asked} {attempt}".encode())
            if not fault and attempt < self.most and draw % 1000 < 1000 * self.share:
                fault = self.kinds[self.made.total() % len(self.kinds)]
            self.made.update([fault] if fault else [])
            return fault

    def handle_error(self, *_: Any) -> None:
        """A client that gave up is what the tests are about."""

    def __enter__(self) -> FaultyServer:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
