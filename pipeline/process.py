"""The cores that this process may use, and the signals that ask it to stop."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final


def usable_cores() -> int:
    """The cores this process may use: by affinity, cgroup quota and Slurm, not all of the machine's."""
    counts = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    counts += [max(1, round(share)) for share in (_quota_v2(), _quota_v1()) if share]
    slurm = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if slurm.isdigit() and int(slurm) > 0:
        counts.append(int(slurm))
    return min(counts)


def _quota_v2(path: Path = Path("/sys/fs/cgroup/cpu.max")) -> float | None:
    try:
        quota, period = path.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path = Path("/sys/fs/cgroup/cpu")) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None


STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def note_stop_signals() -> Iterator[list[int]]:
    """Collect the signals that ask to stop in a list, for the caller to obey when it can.

    Outside the main thread the list stays empty, as Python handles signals in the main thread only.
    """
    noted: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        noted.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
