"""The pretended GPU itself: its counts, and the names of torch that it stands behind while it is there."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from torch import Tensor

from tests.pretended_gpu.memory import MemoryPool
from tests.pretended_gpu.patches import patched_torch
from tests.pretended_gpu.streams import CLOCKS, DeviceClock
from tests.pretended_gpu.tensors import GPUS

ROOT: Final = Path(__file__).resolve().parents[2]
HERE: Final = str(Path(__file__).parent)
ENVIRONMENTS: Final = ("/.venv/", "/site-packages/")


class PretendedGpu:
    """What the device was asked for, and its memory."""

    def __init__(self, *, lag: int, seed: int, memory: int | None) -> None:
        self.launches: Counter[str] = Counter()
        """Kernels, copies and fills, by operator."""
        self.synchronisations: Counter[str] = Counter()
        """By the file and line that the host waited in."""
        self.clock = DeviceClock(lag, seed, self.synchronise)
        self.pool = MemoryPool(memory)
        self._pinned: list[tuple[int, int, Tensor]] = []

    def reset(self) -> None:
        """Count from zero."""
        self.launches.clear()
        self.synchronisations.clear()
        self.pool.reset_peak()

    def synchronise(self) -> None:
        """Count a wait of the host's."""
        self.synchronisations[_place()] += 1

    def pin(self, host: Tensor) -> None:
        """Take host memory for pinned, until the GPU is gone: torch keeps pinned blocks as well."""
        begin = host.untyped_storage().data_ptr()
        self._pinned.append((begin, begin + host.untyped_storage().nbytes(), host.detach()))

    def is_pinned(self, host: Tensor) -> bool:
        """Whether a tensor lies in pinned memory."""
        address = host.data_ptr()
        return any(begin <= address < end for begin, end, _ in self._pinned)


@contextmanager
def pretended_gpu(*, lag: int = 0, seed: int = 0, memory: int | None = None) -> Iterator[PretendedGpu]:
    """A GPU for the time of a `with`; `lag` is the longest delay of an operator, `memory` its bytes."""
    gpu = PretendedGpu(lag=lag, seed=seed, memory=memory)
    with ExitStack() as stack:
        GPUS.append(gpu)
        stack.callback(GPUS.remove, gpu)
        CLOCKS.append(gpu.clock)
        stack.callback(CLOCKS.remove, gpu.clock)
        stack.enter_context(patched_torch(gpu))
        yield gpu


def _place() -> str:
    """The innermost line of this repository that led here."""
    frame = sys._getframe()
    while frame is not None:
        name = frame.f_code.co_filename
        own = name.startswith(HERE) and not Path(name).name.startswith("test_")
        if name.startswith(str(ROOT)) and not own and not any(part in name for part in ENVIRONMENTS):
            return f"{Path(name).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
