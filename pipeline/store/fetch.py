"""Requests to servers: timeouts, retries with pauses between them, and errors that no retry can change.

Any fsspec filesystem will do. The timeout holds for those that are asynchronous inside (http, s3, gs);
calls of the others last as long as they last.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pipeline.errors import IntegrityError, RunInterrupted, SourceMissing

HTTP_GONE: Final = (404, 410)
HTTP_DENIED: Final = (401, 403)
HTTP_RETRYABLE: Final = (408, 425, 429)  # the only refusals that another try may change
HTTP_RANGE_INVALID: Final = 416  # the file ends before the range
SAME_ANSWERS: Final = 3  # equal wrong answers, after which another try will not differ

_JITTER: Final = random.SystemRandom()  # has no state; the global generator belongs to the user


class RemoteFileMissing(SourceMissing):
    """The server says that there is no such file."""


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
        return str(self.fs.unstrip_protocol(self.path))


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

    def read_range(self, source: RemotePath, begin: int, end: int, check: BytesCheck) -> bytes:
        """Read bytes of a file. Raises IntegrityError if they stay wrong, else SourceMissing."""

        def check_range(body: bytes) -> str:
            if len(body) > end - begin:
                raise SourceMissing(
                    f"{source} ignores byte ranges: {end - begin:,} bytes were asked for and "
                    f"{len(body):,} came; serve the shards with a server that knows ranges "
                    "(python -m http.server does not), or copy them to a local disk"
                )
            fault = check(body)
            short = len(body) < end - begin
            return f"{len(body):,} of {end - begin:,} bytes came" if short else fault

        what = f"{source}, bytes {begin:,} to {end:,},"
        body: bytes = self._request(what, source, "cat_file", check_range, start=begin, end=end)
        return body

    def read_file(self, source: RemotePath, check: BytesCheck) -> bytes:
        """Read a small file."""
        body: bytes = self._request(str(source), source, "cat_file", check)
        return body

    def list_folders(self, source: RemotePath) -> list[RemotePath]:
        """The folders in a folder."""
        source.fs.invalidate_cache()
        entries = self._request(str(source), source, "ls", lambda _: "", detail=True)
        paths = sorted(entry["name"] for entry in entries if entry["type"] == "directory")
        return [RemotePath(source.fs, path.rstrip("/")) for path in paths]

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
        self, what: str, source: RemotePath, method: str, check: Callable[[Any], str], **options: Any
    ) -> Any:
        """Call a method of the filesystem until its answer passes the check or no try is left."""
        failures: list[str] = []
        wrong: list[Any] = []
        for attempt in range(self.retry.retries + 1):
            self._pause(attempt, what)
            try:
                answer = self._call(source, method, options)
            except Exception as error:  # noqa: BLE001 - each filesystem has errors of its own
                self._stop_if_closed(what)
                failures.append(_describe_failure(error, what, self.retry.timeout))
                continue
            fault = check(answer)
            if not fault:
                return answer
            failures.append(fault)
            wrong = [*wrong, answer] if answer in wrong else [answer]
            if len(wrong) == SAME_ANSWERS:  # the file is like that: the network would vary
                raise IntegrityError(f"{what} came {SAME_ANSWERS} times with the same fault: {fault}")
        raise SourceMissing(f"{what} cannot be had; {len(failures)} tries: {'; '.join(failures)}")

    def _stop_if_closed(self, what: str) -> None:
        if self._closing.is_set():
            raise RunInterrupted(f"{what} is not fetched: the store was closed")

    def _pause(self, attempt: int, what: str) -> None:
        if attempt:
            longest = self.retry.pause * 2 ** (attempt - 1)
            self._closing.wait(_JITTER.uniform(0, min(longest, self.retry.longest_pause)))
        self._stop_if_closed(what)
        self.count(requests=1, retries=int(attempt > 0))

    def _call(self, source: RemotePath, method: str, options: dict[str, Any]) -> Any:
        if source.fs.async_impl:
            answer = self._call_async(source, method, options)
        else:
            answer = getattr(source.fs, method)(source.path, **options)
        if isinstance(answer, bytes):
            self.count(bytes=len(answer))
        return answer

    def _call_async(self, source: RemotePath, method: str, options: dict[str, Any]) -> Any:
        """Call in the filesystem's own event loop, where a timeout or `close` can cut it short."""
        request = getattr(source.fs, f"_{method}")(source.path, **options)
        limited = asyncio.wait_for(request, self.retry.timeout)
        future = asyncio.run_coroutine_threadsafe(limited, source.fs.loop)
        with self._lock:
            self._running.add(future)
        if self._closing.is_set():  # perhaps too late for `close` to see this one
            future.cancel()
        try:
            return future.result()
        finally:
            with self._lock:
                self._running.discard(future)


def _describe_failure(error: Exception, what: str, timeout: float) -> str:
    """A few words on a failed try. Raises SourceMissing or IntegrityError when no other try can help."""
    status = getattr(error, "status" if hasattr(error, "status") else "code", None)
    if isinstance(error, FileNotFoundError) or status in HTTP_GONE:
        raise RemoteFileMissing(f"{what} is not there; was the shard set moved or built anew?") from error
    if isinstance(error, PermissionError) or status in HTTP_DENIED:
        raise SourceMissing(
            f"{what}: access denied ({error}); give credentials, in the environment or as options"
        ) from error
    if status == HTTP_RANGE_INVALID:
        raise IntegrityError(f"{what}: the file ends before that ({error})") from error
    if isinstance(status, int) and 400 <= status < 500 and status not in HTTP_RETRYABLE:  # noqa: PLR2004
        raise SourceMissing(f"{what}: the server refuses ({error})") from error
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return f"no answer in {timeout:g} s"
    return f"{type(error).__name__} {status or error}"
