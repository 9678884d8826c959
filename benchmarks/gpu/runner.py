"""Runs parts one after the other, each within a budget; what fails or hangs costs the others nothing."""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import torch

from benchmarks.common import TableRow, is_installed
from benchmarks.gpu.scale import MeasureScale, free_memory
from pipeline.errors import first_line

Measure: TypeAlias = Callable[[MeasureScale], Iterator[TableRow]]
LEAST_SHARE: Final = 0.4  # of its budget; a part with less time left does not begin
GRACE: Final = 15.0  # seconds more than a part may take; then the row that takes too long is given up


class RowTimeout(BaseException):
    """A row has taken so long that its part is given up, whatever the part itself catches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredPart:
    """One part of the benchmark; its rows come in order of worth."""

    name: str
    load: Callable[[], Measure]
    """Imports it: a module that is missing costs its own part only."""
    seconds: float
    """Its budget on a GPU."""
    needs: Sequence[str] = ()
    """Modules."""
    gpu_only: bool = False

    def budget(self, scale: MeasureScale) -> float:
        """Seconds; a dry run is limited as a whole only."""
        return 0.0 if scale.quick else self.seconds

    def reason_against(self, scale: MeasureScale, left: float) -> str:
        """Why it cannot run here and now; empty if it can."""
        if self.gpu_only and not scale.gpu:
            return "needs a GPU"
        if missing := [name for name in self.needs if not is_installed(name)]:
            return f"needs {', '.join(missing)}, not installed"
        if left < LEAST_SHARE * self.budget(scale):
            return f"{left:.0f} s were left, and its budget is {self.seconds:.0f}"
        return ""


@dataclass(slots=True)
class PartResult:
    """What a part has measured so far."""

    name: str
    rows: list[TableRow] = field(default_factory=list)
    seconds: float = 0.0
    remark: str = ""
    """Why it was left out, stopped, or failed; empty where it ran to its end."""
    trace: str = ""


def run_parts(
    parts: Sequence[MeasuredPart],
    scale: MeasureScale,
    seconds: float,
    *,
    keep: Callable[[PartResult], None],
    grace: float = GRACE,
) -> None:
    """Run parts until so many seconds are over; `keep` is called with a part's result after each of its rows.

    What a part leaves of its budget is the next one's.
    """
    end, spare = time.monotonic() + seconds, 0.0
    for part in parts:
        left = end - time.monotonic()
        result = PartResult(part.name, remark=part.reason_against(scale, left))
        if not result.remark:
            allowed = left if scale.quick else min(left, part.seconds + spare)
            _run_part(part, scale, result, allowed, limit=min(left, allowed + grace), keep=keep)
            spare = max(0.0, allowed - result.seconds)
            free_memory()
        keep(result)


def _run_part(
    part: MeasuredPart,
    scale: MeasureScale,
    result: PartResult,
    allowed: float,
    *,
    limit: float,
    keep: Callable[[PartResult], None],
) -> None:
    begin = time.monotonic()
    try:
        with interrupted_after(limit):
            for row in part.load()(scale):
                result.rows.append(row)
                result.seconds = time.monotonic() - begin
                print(part.name, row, file=sys.stderr, flush=True)
                keep(result)
                if result.seconds > allowed:
                    result.remark = f"stopped after {result.seconds:.0f} s, its time"
                    break
    except RowTimeout:
        result.remark = f"given up after {limit:.0f} s, in a row that took too long"
    except Exception as error:  # noqa: BLE001 - the other parts are measured all the same
        result.remark = f"failed: {type(error).__name__}: {first_line(error)}"
        result.trace = traceback.format_exc()
        print(result.trace, file=sys.stderr, flush=True)
    result.seconds = time.monotonic() - begin


@contextmanager
def interrupted_after(seconds: float) -> Iterator[None]:
    """Raise RowTimeout in the main thread after so many seconds: at its next bytecode, or out of a lock."""

    def interrupt(*_: object) -> None:
        raise RowTimeout

    main = threading.main_thread().ident
    assert main == threading.get_ident(), "signals reach the main thread alone"
    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGUSR1))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, before)


def out_of_memory(error: torch.OutOfMemoryError) -> TableRow:
    """The rest of a row whose case did not fit."""
    free_memory()
    return {"remark": f"out of memory: {first_line(error)[:80]}"}
