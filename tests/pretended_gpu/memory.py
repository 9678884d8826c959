"""Device memory: blocks that come back when their last tensor dies, and are handed out again at once."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from tests.pretended_gpu.streams import DeviceEvent, DeviceStream

GRAIN: Final = 512  # bytes; CUDA's allocator rounds sizes up to multiples of it


class DroppedBlock(NamedTuple):
    """What is left of a block whose tensors died."""

    size: int
    memory: Tensor | None
    stream: DeviceStream
    users: set[DeviceStream]


class DeviceBlock:
    """The memory of a tensor and of its views. It is given back when the last of them dies."""

    def __init__(self, size: int, memory: Tensor | None, pool: MemoryPool, stream: DeviceStream) -> None:
        self.size = size
        """Bytes."""
        self.memory = memory
        """The bytes themselves, on the CPU; None if they are only counted, and never used again."""
        self.stream = stream
        """The stream that it was allocated on, whose later operators may have it at once."""
        self.users: set[DeviceStream] = set()
        """Other streams, by `record_stream`: their operators so far run first."""
        self._pool = pool

    def __del__(self) -> None:
        self._pool.dropped.append(DroppedBlock(self.size, self.memory, self.stream, self.users))


class MemoryPool:
    """The memory of the device: how much is in use, and the blocks that wait for their next use."""

    def __init__(self, limit: int | None) -> None:
        self.dropped: deque[DroppedBlock] = deque()
        """What died since the last look; tensors die in any thread, so nothing else is done there."""
        self._limit = limit
        self._allocated = 0
        self._peak = 0
        self._free: dict[tuple[DeviceStream, int], list[Tensor]] = defaultdict(list)
        self._held: list[tuple[Tensor, DeviceStream, list[DeviceEvent]]] = []

    @property
    def allocated(self) -> int:
        """Bytes of living tensors."""
        self._take_back()
        return self._allocated

    @property
    def peak(self) -> int:
        """The most bytes of living tensors since `reset_peak`."""
        return self._peak

    def reset_peak(self) -> None:
        """Begin a new peak with what is living."""
        self._peak = self.allocated

    @property
    def limit(self) -> int:
        """Bytes of the device."""
        return self._limit or 2**40

    def take(self, size: int, stream: DeviceStream) -> DeviceBlock:
        """A block of so many bytes at least, whatever was in it."""
        size = self._reserve(size)
        free = self._free[stream, size]
        memory = free.pop() if free else torch.empty(size, dtype=torch.uint8)
        return DeviceBlock(size, memory, self, stream)

    def count(self, size: int, stream: DeviceStream) -> DeviceBlock:
        """A block for memory that is there already, and is not used again."""
        return DeviceBlock(self._reserve(size), None, self, stream)

    def _reserve(self, size: int) -> int:
        """Count so many bytes, rounded up, or refuse."""
        size = -(-max(size, 1) // GRAIN) * GRAIN
        self._take_back()
        if self._limit is not None and self._allocated + size > self._limit:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size:,} bytes. The pretended GPU has {self._limit:,} "
                f"bytes, of which {self._allocated:,} are in use"
            )
        self._allocated += size
        self._peak = max(self._peak, self._allocated)
        return size

    def _take_back(self) -> None:
        """Free what was dropped and is used no more."""
        while self.dropped:
            size, memory, stream, users = self.dropped.popleft()
            self._allocated -= size
            if memory is not None:
                self._held.append((memory, stream, [user.record_event() for user in users]))
        held, self._held = self._held, []
        for memory, stream, events in held:
            if all(event.over for event in events):
                self._free[stream, memory.nbytes].append(memory)
            else:
                self._held.append((memory, stream, events))
