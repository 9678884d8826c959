"""One input through one target, under limits of processor time and memory."""

from __future__ import annotations

import hashlib
import resource
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from tests.fuzz.target import FuzzTarget

MEGABYTE: Final = 1 << 20
ADDRESS_SPACE: Final = 4  # times the memory limit: threads and arenas reserve addresses that they never touch


class InputTooSlow(BaseException):
    """One input took more processor time than the target allows."""


class MemoryGrew(Exception):
    """The process holds more memory than the target allows."""


class TrialLimits:
    """The limits of one process that tries inputs; processor time, since a loaded machine stretches the other."""

    def __init__(self, target: FuzzTarget) -> None:
        self._target = target
        forget_peak()
        self._most_kilobytes = peak_kilobytes() + target.limit_mb * 1024

    def run(self, data: bytes) -> None:
        """Check one input; whatever this raises is a find."""
        signal.setitimer(signal.ITIMER_PROF, self._target.seconds)
        try:
            self._target.check(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        if peak_kilobytes() > self._most_kilobytes:
            forget_peak()
            raise MemoryGrew(f"{self._target.name} went {self._target.limit_mb} MB beyond its start")


@contextmanager
def trial_limits(target: FuzzTarget) -> Iterator[TrialLimits]:
    """Limits for this process while it tries inputs of the target."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGPROF, _too_slow)
    most = address_space() + target.limit_mb * ADDRESS_SPACE * MEGABYTE
    resource.setrlimit(
        resource.RLIMIT_AS, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard)
    )
    try:
        yield TrialLimits(target)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGPROF, previous)


def _too_slow(_signal: int, _frame: FrameType | None) -> None:
    raise InputTooSlow


def peak_kilobytes() -> int:
    """The most memory that this process held since its peak was forgotten."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Measure the peak of this process's memory from now on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def address_space() -> int:
    """Bytes of addresses that this process has reserved."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


def signature(error: BaseException) -> str:
    """The kind of an error and the line of this project that raised it: two finds of one cause share it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "/pipeline/" in frame.filename or "/learners/" in frame.filename]
    outside = [frame for frame in frames if frame.filename != __file__]
    place = (own or outside or frames)[-1]
    return f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}"


def keep_find(target: FuzzTarget, data: bytes) -> Path:
    """Write an input where `make test` replays it from now on."""
    target.finds_folder.mkdir(parents=True, exist_ok=True)
    path = target.finds_folder / hashlib.sha256(data).hexdigest()[:8]
    path.write_bytes(data)
    return path
