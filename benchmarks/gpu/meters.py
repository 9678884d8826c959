"""Meters: milliseconds of a call, its kernels, its synchronisations, its memory."""

from __future__ import annotations

import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

from benchmarks.common import ROOT, TableRow, synchronize

LARGEST_KERNELS: Final = 6
KERNEL_NAME_LENGTH: Final = 60  # characters
SYNCHRONISING: Final = "synchronizing CUDA operation"  # in the warnings of torch's debug mode


def median_ms(call: Callable[[], object], *, least: int = 3, most: int = 20, seconds: float = 1.5) -> float:
    """The median of several calls after a first one, in milliseconds; each begins and ends with an idle device."""
    call()
    synchronize()
    times, until = list[float](), time.monotonic() + seconds
    while len(times) < least or (len(times) < most and time.monotonic() < until):
        begin = time.perf_counter()
        call()
        synchronize()
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def count_synchronisations(call: Callable[[], object]) -> TableRow:
    """How often a call makes the host wait for the GPU, and where; nothing without a GPU."""
    if not torch.cuda.is_available():
        return {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{_short_path(warning.filename)}:{warning.lineno}"
        for warning in caught
        if SYNCHRONISING in str(warning.message)
    )
    return {"synchronisations": places.total(), "_synchronising_places": dict(places.most_common())}


def _short_path(path: str) -> str:
    """A file's path in the repository, or its last two parts: no folders of the machine."""
    file = Path(path)
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else "/".join(file.parts[-2:])


def profile_kernels(call: Callable[[], object]) -> TableRow:
    """The number of kernels and copies of a call, their time, and the largest of them; nothing without a GPU."""
    from torch.profiler import ProfilerActivity, profile, supported_activities  # noqa: PLC0415 - slow to import

    if ProfilerActivity.CUDA not in supported_activities():  # type: ignore[no-untyped-call]
        return {}
    synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        synchronize()
    events = [event for event in profiler.events() if str(event.device_type).endswith("CUDA")]
    sums = sorted(profiler.key_averages(), key=lambda entry: -entry.self_device_time_total)
    return {
        "kernels": len(events),
        "kernel_ms": sum(event.device_time_total for event in events) / 1000,
        "_largest_kernels": [
            f"{entry.key[:KERNEL_NAME_LENGTH]}: {entry.self_device_time_total / 1000:.2f} ms in {entry.count}"
            for entry in sums[:LARGEST_KERNELS]
        ],
    }


@contextmanager
def peak_memory(row: TableRow) -> Iterator[None]:
    """Add the peak of allocated and of reserved memory meanwhile to a row, in GB; nothing without a GPU."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.reset_peak_memory_stats()
    yield
    row["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
    row["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9
