"""One request to a server, as often as it takes: timeouts, retries, pauses, and what is hopeless.

Any fsspec filesystem will do. Those that are asynchronous inside (http, s3, gs) get the timeout; the
others are waited for.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from pipeline.errors import IntegrityError, Interrupted, SourceMissing

GONE: Final = (404, 410)  # HTTP's numbers
DENIED: Final = (401, 403)
PASSING: Final = (408, 425, 429)  # the only refusals that another try may change
OUTSIDE: Final = 416  # the file ends before the range
SAME: Final = 3  # wrong answers in a row, all alike, after which another will not differ

_JITTER: Final = random.SystemRandom()  # has no state; the global generator belongs to the user


class NotThere(SourceMissing):
    """The server says that there is no such file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Patience:
    """How long to wait for a server, and how often to ask again."""

    timeout: float = 30.0
    """Seconds for one request, from connecting to its last byte."""
    retries: int = 5
    pause: float = 0.5
    """Seconds before the first retry, at most; doubled for each further one, and drawn from zero up,
    so that many clients do not come back at once."""
    longest_pause: float = 20.0


@dataclass(slots=True)
class Stats:
    """What a store has done so far."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    """Received, wrong ones included."""
    read: int = 0
    """Samples handed out."""
    fetched: int = 0
    """Samples that came over the network for that."""
    evicted: int = 0
    """Files dropped from the cache to make room."""

    @property
    def hits(self) -> int:
        """Samples that the cache had already."""
        return max(0, self.read - self.fetched)


class Origin(NamedTuple):
    """A folder on a server."""

    fs: Any
    path: str

    def at(self, *names: str) -> Origin:
        """A file or folder in it."""
        return Origin(self.fs, "/".join([self.path.rstrip("/"), *names]))

    def __str__(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))


Check = Callable[[bytes], str]
"""What is wrong with these bytes; "" when nothing is."""


class Fetcher:
    """Asks servers, from any number of threads."""

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.stats = Stats()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._running: set[Future[Any]] = set()

    def span(self, origin: Origin, begin: int, end: int, check: Check) -> bytes:
        """Those bytes of a file. Raises IntegrityError if they stay wrong, else SourceMissing."""

        def judged(body: bytes) -> str:
            if len(body) > end - begin:
                raise SourceMissing(
                    f"{origin} ignores byte ranges: {end - begin:,} bytes were asked for and "
                    f"{len(body):,} came; serve the shards with a server that knows ranges "
                    "(python -m http.server does not), or copy them to a local disk"
                )
            fault = check(body)
            short = len(body) < end - begin
            return f"{len(body):,} of {end - begin:,} bytes came" if short else fault

        what = f"{origin}, bytes {begin:,} to {end:,},"
        body: bytes = self._asked(what, origin, "cat_file", judged, start=begin, end=end)
        return body

    def whole(self, origin: Origin, check: Check) -> bytes:
        """A small file."""
        body: bytes = self._asked(str(origin), origin, "cat_file", check)
        return body

    def folders(self, origin: Origin) -> list[Origin]:
        """The folders in a folder."""
        origin.fs.invalidate_cache()
        entries = self._asked(str(origin), origin, "ls", lambda _: "", detail=True)
        paths = sorted(entry["name"] for entry in entries if entry["type"] == "directory")
        return [Origin(origin.fs, path.rstrip("/")) for path in paths]

    def count(self, **more: int) -> None:
        """Add to the stats."""
        with self._lock:
            for name, number in more.items():
                setattr(self.stats, name, getattr(self.stats, name) + number)

    def close(self) -> None:
        """Give up whatever is under way; every later request raises Interrupted."""
        self._closing.set()
        with self._lock:
            running = list(self._running)
        for future in running:
            future.cancel()

    def _asked(
        self, what: str, origin: Origin, method: str, check: Callable[[Any], str], **options: Any
    ) -> Any:
        happened: list[str] = []
        answers: list[Any] = []
        for attempt in range(self.patience.retries + 1):
            self._pause(attempt, what)
            try:
                answer = self._once(origin, method, options)
            except Exception as error:  # noqa: BLE001 - each filesystem has errors of its own
                self._stop_if_closed(what)
                happened.append(_said(error, what, self.patience.timeout))
                continue
            fault = check(answer)
            if not fault:
                return answer
            happened.append(fault)
            answers = [*answers, answer] if answer in answers else [answer]
            if len(answers) == SAME:  # not the way here: the file is like that
                raise IntegrityError(f"{what} came {SAME} times with the same fault: {fault}")
        raise SourceMissing(f"{what} cannot be had; {len(happened)} tries: {'; '.join(happened)}")

    def _stop_if_closed(self, what: str) -> None:
        if self._closing.is_set():
            raise Interrupted(f"{what} is not fetched: the store was closed")

    def _pause(self, attempt: int, what: str) -> None:
        if attempt:
            longest = self.patience.pause * 2 ** (attempt - 1)
            self._closing.wait(_JITTER.uniform(0, min(longest, self.patience.longest_pause)))
        self._stop_if_closed(what)
        self.count(requests=1, retries=int(attempt > 0))

    def _once(self, origin: Origin, method: str, options: dict[str, Any]) -> Any:
        if origin.fs.async_impl:
            answer = self._limited(origin, method, options)
        else:
            answer = getattr(origin.fs, method)(origin.path, **options)
        if isinstance(answer, bytes):
            self.count(bytes=len(answer))
        return answer

    def _limited(self, origin: Origin, method: str, options: dict[str, Any]) -> Any:
        """In the filesystem's own loop, where a timeout or `close` can cut it short."""
        asked = getattr(origin.fs, f"_{method}")(origin.path, **options)
        limited = asyncio.wait_for(asked, self.patience.timeout)
        future = asyncio.run_coroutine_threadsafe(limited, origin.fs.loop)
        with self._lock:
            self._running.add(future)
        if self._closing.is_set():  # perhaps too late for `close` to see this one
            future.cancel()
        try:
            return future.result()
        finally:
            with self._lock:
                self._running.discard(future)


def _said(error: Exception, what: str, timeout: float) -> str:
    """What happened, in short. Raises SourceMissing when another try cannot help."""
    status = getattr(error, "status" if hasattr(error, "status") else "code", None)
    if isinstance(error, FileNotFoundError) or status in GONE:
        raise NotThere(f"{what} is not there; was the shard set moved or built anew?") from error
    if isinstance(error, PermissionError) or status in DENIED:
        raise SourceMissing(
            f"{what}: access denied ({error}); give credentials, in the surroundings or as options"
        ) from error
    if status == OUTSIDE:
        raise IntegrityError(f"{what}: the file ends before that ({error})") from error
    if isinstance(status, int) and 400 <= status < 500 and status not in PASSING:  # noqa: PLR2004
        raise SourceMissing(f"{what}: the server refuses ({error})") from error
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return f"no answer in {timeout:g} s"
    return f"{type(error).__name__} {status or error}"
