"""Nobody holds the server up: a request has limits of time, and connections and computations of number."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from learners.demo import server as server_module
from learners.demo import service as service_module
from learners.demo.server import DemoServer
from learners.demo.timed_input import IDLE_SECONDS, TimedInput
from learners.use.classifier import Learner
from tests.images import jpeg_bytes
from tests.learners.demo.serving import PageClient, served

LONG = 60.0  # seconds that no test waits where the code is right


def connect(server: DemoServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(server.server_address[1])), timeout=LONG)


@pytest.fixture
def two_places(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> Iterator[DemoServer]:
    monkeypatch.setattr(server_module, "MAX_CONNECTIONS", 2)
    with served(learner) as server:
        yield server


def test_a_body_that_trickles_has_a_time_limit_as_a_whole() -> None:
    """Each byte comes soon enough for the limit of idleness."""
    ours, theirs = socket.socketpair()
    now = 0.0
    with ours, theirs:
        reader = TimedInput(ours, lambda: now)
        reader.limit(300)
        for second in range(0, 300, 10):
            now = float(second)
            theirs.send(b"x")
            assert reader.readinto(bytearray(8)) == 1
        assert ours.gettimeout() == 10
        reader.limit(300)
        theirs.send(b"x")
        assert reader.readinto(bytearray(8)) == 1
        assert ours.gettimeout() == IDLE_SECONDS
        now = 601.0
        theirs.send(b"x")
        with pytest.raises(TimeoutError):
            reader.readinto(bytearray(8))


@pytest.mark.parametrize("begin", [b"", b"POST /api/pic", b"POST /api/session HTTP/1.1\r\nHost: x\r\nX-A"])
def test_a_request_that_never_ends_is_given_up(
    begin: bytes, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.2)
    with served(learner) as server, connect(server) as connection:
        connection.sendall(begin)
        assert connection.recv(1) == b""


def test_a_body_that_never_ends_is_given_up(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(learner) as server:
        page = PageClient(server)
        page.connection.close()
        monkeypatch.setattr(server_module, "REQUEST_SECONDS", 0.2)
        head = f"POST /api/pictures HTTP/1.1\r\nHost: {server.hosts[0]}\r\nX-Session: {page.session}\r\n"
        with connect(server) as connection:
            connection.sendall(head.encode() + b"Content-Length: 1000000\r\n\r\n" + bytes(1000))
            assert connection.recv(1) == b""


def test_a_connection_too_many_is_closed_and_a_free_place_is_used_again(two_places: DemoServer) -> None:
    first, second = connect(two_places), connect(two_places)
    with first, second:
        for connection in (first, second):  # each has its thread when it is answered
            connection.sendall(f"GET / HTTP/1.1\r\nHost: {two_places.hosts[0]}\r\n\r\n".encode())
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        with connect(two_places) as third:
            assert third.recv(1) == b""
    for _ in range(1000):  # until the threads of the closed ones have ended
        with connect(two_places) as again:
            again.settimeout(LONG)
            try:
                again.sendall(f"GET / HTTP/1.1\r\nHost: {two_places.hosts[0]}\r\n\r\n".encode())
                if again.recv(15) == b"HTTP/1.1 200 OK":
                    return
            except ConnectionError:
                continue
    pytest.fail("no place was given back")


def test_a_computation_that_lasts_does_not_hold_up_other_pages_for_ever(
    learner: Learner, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "WAIT_SECONDS", 0.05)
    with served(learner) as server:
        page = PageClient(server)
        with closing(page.connection):
            page.adapt_to(photos)
            picture = page.add(jpeg_bytes(1))
            with server.service._computing:
                status, answer = page.ask("POST", "/api/classify", {"pictures": [picture]})
                assert (status, "try again in a while" in answer["error"]) == (503, True)
                assert page.ask("GET", "/api/classifier")[0] == 503
                assert page.add(jpeg_bytes(2))
            assert page.ask("POST", "/api/classify", {"pictures": [picture]})[0] == 200
