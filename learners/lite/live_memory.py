"""The memory that a computation takes at its peak, beside what is in use before it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

PeakMemory: TypeAlias = Callable[[Callable[[], object]], int]
"""A function that runs a computation and returns the bytes that it took at its peak."""


def peak_memory(device: torch.device) -> PeakMemory:
    """How peaks are measured on a device: by the allocator of a GPU, else by counting tensors."""
    return _allocated_peak(device) if device.type == "cuda" else counted_peak


def _allocated_peak(device: torch.device) -> PeakMemory:
    def measure(run: Callable[[], object]) -> int:
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return int(torch.cuda.max_memory_allocated(device)) - before

    return measure


def counted_peak(run: Callable[[], object]) -> int:
    """The most bytes that tensors which the computation makes have at a time, those kept for its backward pass too.

    What an operation needs within itself is not seen.
    """
    live = LiveTensors()
    with live:
        run()
    return live.peak


class LiveTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not type its hook
    """A mode that counts the bytes of all storages which operations return, each until it is freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        self._now = 0
        self.peak = 0

    def __torch_dispatch__(
        self,
        function: Any,
        types: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        result = function(*arguments, **(options or {}))
        given = {storage for value in tree_leaves((arguments, options)) for storage in _storages(value)}
        for value in tree_leaves(result):
            for storage in _storages(value):
                if storage not in given and storage not in self._seen:
                    self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        self._seen.add(storage)
        size = storage.nbytes()
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self._now -= size


def _storages(value: object) -> list[torch.UntypedStorage]:
    return [value.untyped_storage()] if isinstance(value, Tensor) else []
