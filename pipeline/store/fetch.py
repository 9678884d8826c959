"""Requests to servers: timeouts, retries with pauses between them, and errors that no retry can change.

Any fsspec filesystem will do. The timeout holds for those that are asynchronous inside (http, s3, gs);
calls of the others last as long as they last.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pipeline.errors import IntegrityError, PipelineError, RunInterrupted, SourceMissing
from pipeline.store.server_errors import AnswerTooLong, ServerOutages, check_length, describe_failure

PIECE_BYTES: Final = 2**23  # of a file: at a megabyte a second a third of a request's time
LISTING_BYTES: Final = 2**22  # of a page that lists a folder: some ten thousand names
MOST_FOLDERS: Final = 1000  # of a listing; each costs requests
PASSWORD: Final = re.compile(r"://[^/@]*:[^/@]*@")
SAME_ANSWERS: Final = 3  # equal wrong answers, after which another try will not differ

_JITTER: Final = random.SystemRandom()  # has no state; the global generator belongs to the user


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """How long to wait for a server, and how often to ask again."""

    timeout: float = 30.0
    """Seconds for one request, from connecting to its last byte."""
    retries: int = 5
    pause: float = 0.5
    """Seconds before the first retry, at most; doubled for each further one, and drawn from zero up,
    so that many clients do not come back at once."""
    longest_pause: float = 20.0
    """Seconds."""


@dataclass(slots=True)
class StoreStats:
    """What a store has done since it was opened."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    """Received, those of wrong answers included."""
    read: int = 0
    """Samples handed out."""
    fetched: int = 0
    """Samples that came over the network."""
    evicted: int = 0
    """Files deleted from the cache to make room."""

    @property
    def hits(self) -> int:
        """Samples that the cache had already."""
        return max(0, self.read - self.fetched)


class RemotePath(NamedTuple):
    """A folder or a file on a server."""

    fs: Any
    path: str

    def at(self, *names: str) -> RemotePath:
        """A folder or a file in this folder."""
        return RemotePath(self.fs, "/".join([self.path.rstrip("/"), *names]))

    def __str__(self) -> str:
        """The URL, without a password that it may hold."""
        return PASSWORD.sub("://", str(self.fs.unstrip_protocol(self.path)))

    @property
    def server(self) -> str:
        """The protocol and the host, or bucket."""
        return "/".join(str(self).split("/", 3)[:3])


BytesCheck = Callable[[bytes], str]
"""Returns what is wrong with these bytes; "" when nothing is."""


class RemoteFetcher:
    """Reads files and folders on servers, from any number of threads."""

    def __init__(self, retry: RetryPolicy) -> None:
        self.retry = retry
        self.stats = StoreStats()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._running: set[Future[Any]] = set()
        self._outages = ServerOutages()

    def read_range(
        self, source: RemotePath, begin: int, end: int, check: BytesCheck, outages: int | None = None
    ) -> bytes:
        """Read bytes of a file. Raises IntegrityError if they stay wrong, else SourceMissing.

        outages: the number of the server's outages when this range was first wanted; default: now. A request
        that was wanted before an outage was found does not wait for it as long again.
        """

        def check_range(body: bytes) -> str:
            fault = check(body)
            short = len(body) < end - begin
            return f"{len(body):,} of {end - begin:,} bytes came" if short else fault

        what = f"{source}, bytes {begin:,} to {end:,},"
        body: bytes = self._request(
            what, source, lambda: self._ask_range(source, begin, end), check_range, outages
        )
        return body

    def read_file(self, source: RemotePath, check: BytesCheck, most: int) -> bytes:
        """Read a whole file of up to `most` bytes, in pieces, each of which has the time of a request."""
        body: bytes = self._request(str(source), source, lambda: self._ask_pieces(source, most), check)
        return body

    def list_folders(self, source: RemotePath) -> list[RemotePath]:
        """The folders in a folder. Raises SourceMissing."""
        if source.path.startswith(("http://", "https://")):
            paths = self._linked_folders(source)
        else:
            source.fs.invalidate_cache()
            entries = self._request(
                str(source), source, lambda: self._call(source, "ls", detail=True), lambda _: ""
            )
            paths = sorted(entry["name"] for entry in entries if entry["type"] == "directory")
        if len(paths) > MOST_FOLDERS:
            raise SourceMissing(
                f"{source} lists {len(paths):,} folders and {MOST_FOLDERS:,} are looked into; give a list "
                "of URLs with one dataset each"
            )
        return [RemotePath(source.fs, path.rstrip("/")) for path in paths]

    def _linked_folders(self, source: RemotePath) -> list[str]:
        from pipeline.store.http_answers import linked_folders  # noqa: PLC0415  (an extra)

        folder = RemotePath(source.fs, source.path.rstrip("/") + "/")
        return linked_folders(self.read_file(folder, lambda _: "", LISTING_BYTES), source.path)

    def outages(self, source: RemotePath) -> int:
        """How often requests to this server were given up so far."""
        return self._outages.number(source.server)

    def count(self, **more: int) -> None:
        """Add to the statistics."""
        with self._lock:
            for name, number in more.items():
                setattr(self.stats, name, getattr(self.stats, name) + number)

    def close(self) -> None:
        """Cancel the requests under way; every later request raises RunInterrupted."""
        self._closing.set()
        with self._lock:
            running = list(self._running)
        for future in running:
            future.cancel()

    def _request(
        self,
        what: str,
        source: RemotePath,
        ask: Callable[[], Any],
        check: Callable[[Any], str],
        outages: int | None = None,
    ) -> Any:
        """Ask the filesystem until its answer passes the check or no try is left."""
        if outages is None:
            outages = self.outages(source)
        failures: list[str] = []
        wrong: list[Any] = []
        for attempt in range(self.retry.retries + 1):
            self._pause(attempt, what)
            self._outages.raise_later_than(source.server, outages)
            try:
                answer = ask()
            except PipelineError:
                raise
            except Exception as error:  # noqa: BLE001 - each filesystem has errors of its own
                self._stop_if_closed(what)
                failures.append(describe_failure(error, what, self.retry.timeout))
                continue
            fault = check(answer)
            if not fault:
                return answer
            failures.append(fault)
            wrong = [*wrong, answer] if answer in wrong else [answer]
            if len(wrong) == SAME_ANSWERS:  # the file is like that: the network would vary
                raise IntegrityError(f"{what} came {SAME_ANSWERS} times with the same fault: {fault}")
        message = f"{what} cannot be had; {len(failures)} tries: {'; '.join(failures)}"
        self._outages.add(source.server, message)
        raise SourceMissing(message)

    def _stop_if_closed(self, what: str) -> None:
        if self._closing.is_set():
            raise RunInterrupted(f"{what} is not fetched: the store was closed")

    def _pause(self, attempt: int, what: str) -> None:
        if attempt:
            longest = self.retry.pause * 2 ** (attempt - 1)
            self._closing.wait(_JITTER.uniform(0, min(longest, self.retry.longest_pause)))
        self._stop_if_closed(what)
        self.count(requests=1, retries=int(attempt > 0))

    def _ask_range(self, source: RemotePath, begin: int, end: int) -> bytes:
        """One try at some bytes; fewer come from the end of a file. Raises SourceMissing if more come."""
        try:
            body: bytes = self._call(source, "cat_file", start=begin, end=end)
            check_length(len(body), end - begin)
        except AnswerTooLong as error:
            raise SourceMissing(
                f"{source} ignores byte ranges: {end - begin:,} bytes were asked for and {error.came:,} or "
                "more came; serve the shards with a server that knows ranges (python -m http.server does "
                "not), or copy them to a local disk"
            ) from error
        self.count(bytes=len(body))
        return body

    def _ask_pieces(self, source: RemotePath, most: int) -> bytes:
        """One try at a whole file. Raises IntegrityError if it has more than `most` bytes."""
        data = bytearray()
        while len(data) <= most:
            begin = max(0, len(data) - 1)  # a byte again: a range that begins at the end is an error
            end = min(begin + PIECE_BYTES, most + 1)
            data[begin:] = piece = self._ask_range(source, begin, end)
            if len(piece) < end - begin:
                return bytes(data)
        raise IntegrityError(
            f"{source} has more than the {most:,} bytes that it may have; was another file copied there?"
        )

    def _call(self, source: RemotePath, method: str, **options: Any) -> Any:
        """Call a method of the filesystem. Raises whatever that raises."""
        if source.fs.async_impl:
            return self._call_async(source, method, options)
        return getattr(source.fs, method)(source.path, **options)

    def _call_async(self, source: RemotePath, method: str, options: dict[str, Any]) -> Any:
        """Call in the filesystem's own event loop, where a timeout or `close` can cut it short."""
        limited = _answer_or_error(source, method, options, self.retry.timeout)
        future = asyncio.run_coroutine_threadsafe(limited, source.fs.loop)
        with self._lock:
            self._running.add(future)
        if self._closing.is_set():  # perhaps too late for `close` to see this one
            future.cancel()
        try:
            answer, error = future.result()
        finally:
            with self._lock:
                self._running.discard(future)
        if error is not None:
            raise error
        return answer


async def _answer_or_error(
    source: RemotePath, method: str, options: dict[str, Any], timeout: float
) -> tuple[Any, Exception | None]:
    """Call a method of an asynchronous filesystem, for so many seconds.

    Neither task raises: of one that `close` or the timeout cancelled, nobody would retrieve the exception.
    """

    async def ask() -> tuple[Any, Exception | None]:
        try:
            return await getattr(source.fs, f"_{method}")(source.path, **options), None
        except Exception as error:  # noqa: BLE001 - each filesystem has errors of its own
            return None, error

    try:
        return await asyncio.wait_for(ask(), timeout)
    except asyncio.TimeoutError as error:
        return None, error
