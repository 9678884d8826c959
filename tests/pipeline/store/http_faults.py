"""What a broken or hostile web server answers instead of the bytes that it was asked for.

A fault takes the handler, the status and the body of an honest answer, and sends something else.
"""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from tests.pipeline.store.faulty_server import FaultyServer

MOST_SENT: Final = 2**28  # bytes, of answers without end: a client that reads on is slow, and not for ever
STALL_SECONDS: Final = 120.0  # longer than any client waits
PIECE: Final = bytes(2**16)
PAGE: Final = b"<html>Welcome to the guest network</html>"


class FaultHandler(BaseHTTPRequestHandler):
    """What faults use of a handler."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def answer(self, status: int, data: bytes, **headers: str) -> None:
        """Send an honest answer."""
        self.head(status, len(data), **headers)
        self.wfile.write(data)

    def head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(length), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def send(self, *pieces: bytes, end: bool = True) -> None:
        """Send bytes as they are; after them the connection ends."""
        for piece in pieces:
            self.wfile.write(piece)
        self.wfile.flush()
        self.close_connection = end

    def send_endlessly(self, head: bytes, piece: bytes) -> None:
        """Send a head, and a piece again and again until the client goes."""
        self.send(head)
        for _ in range(MOST_SENT // len(piece)):
            self.wfile.write(piece)
            self.server.sent += len(piece)

    def reset(self) -> None:
        """End the connection with a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True


HttpFault: TypeAlias = Callable[[FaultHandler, int, bytes], None]


def short(handler: FaultHandler, status: int, data: bytes) -> None:
    """Another length each time, less than was asked for."""
    handler.answer(status, data[: 7919 * handler.server.next_serial() % len(data)])


def wrong(handler: FaultHandler, status: int, data: bytes) -> None:
    """Another wrong byte each time."""
    middle = len(data) // 2
    spoilt = bytes([data[middle] ^ 1 + handler.server.next_serial() % 255])
    handler.answer(status, data[:middle] + spoilt + data[middle + 1 :])


def reset(handler: FaultHandler, status: int, data: bytes) -> None:
    handler.head(status, len(data))
    handler.send(data[: len(data) // 2])
    handler.reset()


def stall(handler: FaultHandler, status: int, data: bytes) -> None:
    """Half of the body and then nothing."""
    handler.head(status, len(data))
    handler.send(data[: len(data) // 2])
    handler.server.stopped.wait(STALL_SECONDS)
    handler.reset()


def silence(handler: FaultHandler, status: int, data: bytes) -> None:
    handler.server.stopped.wait(STALL_SECONDS)
    handler.close_connection = True


def trickle(handler: FaultHandler, status: int, data: bytes) -> None:
    """A byte now and then."""
    handler.head(status, len(data))
    handler.close_connection = True
    for at in range(len(data)):
        handler.send(data[at : at + 1])
        if handler.server.stopped.wait(0.05):
            return


def shift(handler: FaultHandler, status: int, data: bytes) -> None:
    """The bytes one further."""
    handler.answer(status, data[1:] + b"\0")


def bomb(handler: FaultHandler, status: int, data: bytes) -> None:
    """A small answer that unpacks to 64 MB."""
    handler.answer(status, packed_zeros(2**26), Content_Encoding="gzip")


@lru_cache
def packed_zeros(count: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(bytes(count)) + packer.flush()


def raw(text: str, *, whole: bool = False) -> HttpFault:
    """An answer of these bytes, `whole` with the honest body behind them."""
    return lambda handler, _, data: handler.send(text.encode("latin-1"), data if whole else b"")


def endless(head: str, piece: bytes) -> HttpFault:
    return lambda handler, _status, _data: handler.send_endlessly(head.encode(), piece)


def redirect(target: str) -> HttpFault:
    return lambda handler, _status, _data: handler.answer(302, b"", Location=target or handler.path)


OK: Final = "HTTP/1.1 206 Partial Content\r\n"
HTTP_FAULTS: Final[dict[str, HttpFault]] = {
    "short": short,
    "wrong": wrong,
    "reset": reset,
    "stall": stall,
    "silence": silence,
    "trickle": trickle,
    "shift": shift,
    "bomb": bomb,
    "empty": lambda handler, status, _: handler.answer(status, b""),
    "page": lambda handler, _status, _data: handler.answer(200, PAGE, Content_Type="text/html"),
    "long": lambda handler, status, data: handler.answer(status, data + b"\0"),
    "cookies": lambda handler, status, data: handler.answer(status, data, Set_Cookie="a=b"),
    "hang up": lambda handler, _status, _data: handler.send(b""),
    "garbage": raw("\0\1\2 what is this?\r\n\r\n"),
    "escapes": raw("HTTP/1.1 500 \x1b[2J\x07\xff gone\r\nContent-Length: 0\r\n\r\n"),
    "old": raw("HTTP/0.9 200\r\n\r\n", whole=True),
    "two lengths": raw(f"{OK}Content-Length: 5\r\nContent-Length: 7\r\n\r\n", whole=True),
    "negative length": raw(f"{OK}Content-Length: -5\r\n\r\n", whole=True),
    "vast length": raw(f"{OK}Content-Length: {10**30}\r\n\r\n", whole=True),
    "broken chunks": raw(f"{OK}Transfer-Encoding: chunked\r\n\r\nzz\r\n", whole=True),
    "vast chunk": raw(f"{OK}Transfer-Encoding: chunked\r\n\r\n7fffffff\r\n", whole=True),
    "unknown packing": raw(f"{OK}Content-Encoding: zstd, br\r\nConnection: close\r\n\r\n", whole=True),
    "not packed": raw(f"{OK}Content-Encoding: gzip\r\nConnection: close\r\n\r\n", whole=True),
    "long header": raw(f"{OK}X: {'x' * 2**20}\r\nContent-Length: 0\r\n\r\n"),
    "many headers": raw(OK + "X: x\r\n" * 10_000 + "Content-Length: 0\r\n\r\n"),
    "endless header": endless(OK, b"X: x\r\n" * 2**13),
    "endless greetings": endless("", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 2**11),
    "endless body": endless(f"{OK}Connection: close\r\n\r\n", PIECE),
    "endless chunks": endless(f"{OK}Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + PIECE + b"\r\n"),
    "redirects": redirect(""),
    "redirect to a file": redirect("file:///etc/passwd"),
    "redirect to nowhere": redirect("http://[x/"),
}
