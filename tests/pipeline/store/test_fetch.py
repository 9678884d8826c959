"""Requests to servers that fail in every way: the right bytes or one sentence, in bounded time and memory."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import fsspec.asyn
import pytest

from pipeline.errors import IntegrityError, PipelineError, RunInterrupted, SourceMissing
from pipeline.store import fetch as fetch_module
from pipeline.store.fetch import RemoteFetcher, RemotePath, RetryPolicy
from pipeline.store.remote_index import parse_url
from tests.pipeline.store.faulty_server import FaultyServer
from tests.pipeline.store.http_faults import HTTP_FAULTS

DATA: Final = bytes(range(1, 251)) * 40
BEGIN, END = 1000, 3000
QUICK: Final = RetryPolicy(timeout=0.3, pause=0.01, retries=1)
PERSISTENT: Final = RetryPolicy(timeout=0.3, pause=0.01, longest_pause=0.1, retries=20)
STEADY: Final = RetryPolicy(
    timeout=30, pause=0.01, retries=1
)  # where nothing stalls, however slow a machine is
THRICE: Final = RetryPolicy(timeout=30, pause=0.01, retries=3)
HARMLESS: Final = ("cookies", "old", "unknown packing")  # the bytes came
FINAL: Final = {  # fault: what is said after one request
    "404": "is not there",
    "410": "is not there",
    "401": "access denied",
    "403": "access denied",
    "400": "the server refuses",
    "416": "the file ends before that",
    "whole": "ignores byte ranges",
    "long": "ignores byte ranges",
    "bomb": "ignores byte ranges",
    "endless body": "ignores byte ranges",
    "endless chunks": "ignores byte ranges",
}
TEMPORARY: Final = (
    "500", "503", "429", "408", "425", *(name for name in HTTP_FAULTS if name not in (*HARMLESS, *FINAL)),
)  # fmt: skip


@pytest.fixture
def served(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "data").write_bytes(DATA)
    with FaultyServer(tmp_path / "www") as server:
        yield server


def file_of(server: FaultyServer, name: str = "data") -> RemotePath:
    return parse_url(f"{server.url}/{name}", {})


def fetch(server: FaultyServer, retry: RetryPolicy) -> bytes:
    def check(data: bytes) -> str:
        return "" if data == DATA[BEGIN:END] else "the bytes differ"

    return RemoteFetcher(retry).read_range(file_of(server), BEGIN, END, check)


@pytest.mark.parametrize("fault", TEMPORARY)
def test_a_fault_that_passes_costs_tries_and_no_byte(served: FaultyServer, fault: str) -> None:
    served.share, served.kinds, served.most = 1.0, (fault,), 2
    assert fetch(served, PERSISTENT) == DATA[BEGIN:END]
    assert served.made[fault] == 2


@pytest.mark.parametrize("fault", TEMPORARY)
def test_a_fault_that_stays_is_one_sentence_after_bounded_tries(served: FaultyServer, fault: str) -> None:
    served.always["data"] = fault
    with pytest.raises((SourceMissing, IntegrityError)) as caught:
        fetch(served, QUICK)
    assert str(caught.value).isprintable()
    assert "2 tries: " in str(caught.value)
    assert served.sent < 2**26  # what sockets hold, of 256 MB


@pytest.mark.parametrize("fault", FINAL)
def test_a_fault_that_no_try_can_change_is_said_at_once(served: FaultyServer, fault: str) -> None:
    served.always["data"] = fault
    with pytest.raises(PipelineError, match=FINAL[fault]):
        fetch(served, THRICE)
    assert len(served.ranges("data")) == 1
    assert served.sent < 2**26


@pytest.mark.parametrize("fault", HARMLESS)
def test_an_odd_answer_with_the_right_bytes_will_do(served: FaultyServer, fault: str) -> None:
    served.always["data"] = fault
    assert fetch(served, STEADY) == DATA[BEGIN:END]


@pytest.mark.parametrize("fault", ["shift", "empty", "page"])
def test_the_same_wrong_answer_three_times_is_the_file(served: FaultyServer, fault: str) -> None:
    served.always["data"] = fault
    with pytest.raises(IntegrityError, match="came 3 times with the same fault"):
        fetch(served, THRICE)
    assert len(served.ranges("data")) == 3


def test_a_server_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with FaultyServer(tmp_path) as server:
        gone = file_of(server)
    with pytest.raises(SourceMissing, match=r"cannot be had; 2 tries: ClientConnectorError"):
        RemoteFetcher(STEADY).read_range(gone, 0, 9, lambda _: "")


@pytest.mark.parametrize("fault", ["endless body", "endless chunks", "bomb", "whole"])
def test_of_a_file_no_more_is_read_than_was_asked_for(served: FaultyServer, fault: str) -> None:
    served.always["data"] = fault
    with pytest.raises(SourceMissing, match="data ignores byte ranges: 5,000 bytes were asked for"):
        RemoteFetcher(STEADY).read_file(file_of(served), lambda _: "", 4_999)
    assert served.sent < 2**26


@pytest.mark.parametrize("size", [1, 999, 1000, 1001, 1998, 1999, 2000, 2998, 9_999, 10_000])
def test_a_file_comes_whole_in_pieces(
    served: FaultyServer, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "PIECE_BYTES", 1000)
    (served.root / "data").write_bytes(DATA[:size])
    fetcher = RemoteFetcher(STEADY)
    assert fetcher.read_file(file_of(served), lambda _: "", size) == DATA[:size]
    assert fetcher.read_file(file_of(served), lambda _: "", 20_000) == DATA[:size]
    with pytest.raises(IntegrityError, match=rf"data has more than the {size - 1:,} bytes that it may have"):
        fetcher.read_file(file_of(served), lambda _: "", size - 1)


def test_a_piece_that_fails_is_asked_for_again(served: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "PIECE_BYTES", 1000)
    served.share, served.kinds = 0.4, ("503", "reset", "short", "wrong")
    fetcher = RemoteFetcher(RetryPolicy(timeout=30, pause=0.01, longest_pause=0.01, retries=50))
    assert fetcher.read_file(file_of(served), lambda data: "" if data == DATA else "differs", 20_000) == DATA
    assert served.made.total() > 2


def test_what_was_wanted_before_an_outage_shares_it(served: FaultyServer) -> None:
    served.always["data"] = "503"
    fetcher, source = RemoteFetcher(STEADY), file_of(served)
    wanted = fetcher.outages(source)
    for begin in range(5):
        with pytest.raises(SourceMissing, match="bytes 0 to 9, cannot be had; 2 tries"):
            fetcher.read_range(source, begin, 9, lambda _: "", wanted)
    assert len(served.ranges("data")) == 2
    del served.always["data"]
    assert fetcher.read_range(source, 3, 9, lambda _: "") == DATA[3:9]


def test_an_outage_ends_the_tries_of_other_threads(served: FaultyServer) -> None:
    served.always["data"] = "503"
    other = served.url.replace("127.0.0.1", "localhost")
    fetcher, source = RemoteFetcher(STEADY), file_of(served)
    wanted = fetcher.outages(source)
    fetcher._outages.add(source.server, "it is gone")
    with pytest.raises(SourceMissing, match="it is gone"):
        fetcher.read_range(source, 0, 9, lambda _: "", wanted)
    del served.always["data"]
    assert fetcher.read_range(parse_url(f"{other}/data", {}), 0, 9, lambda _: "", 0) == DATA[:9]


def test_a_listing_of_too_many_folders_is_an_error(served: FaultyServer) -> None:
    for number in range(1001):
        (served.root / f"set-{number}").mkdir()
    with pytest.raises(SourceMissing, match="lists 1,001 folders and 1,000 are looked into"):
        RemoteFetcher(STEADY).list_folders(file_of(served, ""))


class LateFailure:
    """A filesystem whose request fails when it is cancelled, as sockets do."""

    async_impl = True

    def __init__(self) -> None:
        self.loop = fsspec.asyn.get_loop()
        self.started = threading.Event()

    def unstrip_protocol(self, path: str) -> str:
        return path

    async def _cat_file(self, _path: str, **_: int) -> bytes:
        self.started.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionResetError("late")


@pytest.mark.parametrize("timeout", [30.0, 0.05])
def test_no_exception_of_a_cancelled_request_is_left_behind(timeout: float) -> None:
    slow, left = LateFailure(), []

    def note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        left.append(context["message"])

    before = slow.loop.get_exception_handler()
    slow.loop.call_soon_threadsafe(slow.loop.set_exception_handler, note)
    fetcher = RemoteFetcher(RetryPolicy(timeout=timeout, retries=0))

    def close() -> None:
        slow.started.wait()
        fetcher.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises((RunInterrupted, SourceMissing)):
        fetcher.read_range(RemotePath(slow, "late://x"), 0, 9, lambda _: "")
    closer.join()
    done = threading.Event()
    slow.loop.call_soon_threadsafe(slow.loop.call_later, 0.05, done.set)
    done.wait()
    gc.collect()
    slow.loop.call_soon_threadsafe(slow.loop.set_exception_handler, before)
    assert left == []


def test_a_password_in_a_url_is_in_no_message() -> None:
    source = parse_url("http://user:secret@127.0.0.1:1/data", {})
    with pytest.raises(SourceMissing) as caught:
        RemoteFetcher(QUICK).read_range(source, 0, 9, lambda _: "")
    assert "http://127.0.0.1:1/data, bytes 0 to 9" in str(caught.value)
    assert "secret" not in str(caught.value)
