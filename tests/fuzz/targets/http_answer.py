"""Answer of a web server to a range: every byte of it, over a socket, to `RemoteFetcher.read_range`."""

from __future__ import annotations

import gzip
import random
import socket
import threading
from contextlib import suppress
from functools import cache
from typing import Final

from pipeline.errors import PipelineError
from pipeline.store.fetch import RemoteFetcher, RemotePath, RetryPolicy
from pipeline.store.remote_index import parse_url
from tests.fuzz.mutations import mutate_bytes

WANTED: Final = bytes(range(32, 128))
BEGIN: Final = 1000
MOST_KEPT: Final = 2**16  # bytes of an answer that is too long: what one read of a socket brings
HEADS: Final = (
    b"Content-Length: 96",
    b"Content-Length: 0",
    b"Content-Length: 18446744073709551616",
    b"Content-Range: bytes 1000-1095/5000",
    b"Content-Range: bytes */0",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Content-Encoding: gzip",
    b"Content-Encoding: deflate",
    b"Content-Encoding: zstd",
    b"Content-Type: multipart/byteranges; boundary=x",
    b"Connection: keep-alive",
    b"Connection: upgrade",
    b"Upgrade: websocket",
    b"Set-Cookie: a=b; Domain=\xff",
    b"Retry-After: 99999999",
    b'ETag: "x',
    b" folded",
    b"X: " + b"x" * 9000,
)  # fmt: skip
STATUSES: Final = (
    b"200",
    b"206",
    b"204",
    b"304",
    b"100",
    b"101",
    b"103",
    b"302",
    b"404",
    b"416",
    b"503",
    b"999",
)
BODIES: Final = (WANTED, WANTED[:50], WANTED + b"!", b"", b"60\r\n" + WANTED + b"\r\n0\r\n\r\n",
                 gzip.compress(WANTED, mtime=0), gzip.compress(bytes(2**20), mtime=0))  # fmt: skip


def answer(status: bytes, heads: list[bytes], body: bytes) -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status + b" x", *heads, b"", body])


def seeds() -> list[bytes]:
    return [
        answer(b"206", [HEADS[0], HEADS[3]], WANTED),
        answer(b"206", [HEADS[5]], BODIES[4]),
        answer(b"200", [HEADS[7]], BODIES[5]),
        answer(b"100", [], b"") + answer(b"206", [HEADS[0]], WANTED),
        answer(b"503", [HEADS[1]], b""),
        answer(b"302", [b"Location: /data", HEADS[1]], b""),
    ]


def mutate(data: bytes, draws: random.Random) -> bytes:
    """Another answer out of the same parts, or changed bytes."""
    if draws.random() < 0.5:
        return mutate_bytes(data, draws)
    heads = draws.choices(HEADS, k=draws.randrange(5))
    return answer(draws.choice(STATUSES), heads, draws.choice(BODIES))


class AnsweringServer:
    """A server that answers every request with the same bytes and hangs up."""

    def __init__(self) -> None:
        self.data = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with suppress(OSError), connection:
                connection.recv(2**16)
                connection.sendall(self.data)


@cache
def server() -> AnsweringServer:
    return AnsweringServer()


@cache
def source() -> RemotePath:
    """A file there; redirects are not followed, since they would lead a fuzzer anywhere."""
    return parse_url(f"http://127.0.0.1:{server().port}/data", {"allow_redirects": False})


def check(data: bytes) -> None:
    """The bytes that were wanted, or a documented error; never more of them than a socket brings at a time."""
    server().data = data
    fetcher = RemoteFetcher(RetryPolicy(timeout=5, retries=0))
    said = ""
    try:
        body = fetcher.read_range(
            source(), BEGIN, BEGIN + len(WANTED), lambda body: "" if body == WANTED else "other bytes"
        )
        assert body == WANTED
    except PipelineError as error:
        said = str(error)
    assert said.isprintable()
    assert fetcher.stats.bytes <= MOST_KEPT + len(WANTED)
