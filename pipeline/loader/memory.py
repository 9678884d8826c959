"""Memory for decoded pixels: reused host buffers, and where an episode's pixels end up."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.decoders.base import Job
from pipeline.store.local import Spots

GRAIN: Final = 8  # sizes are rounded up by an eighth at most, so that similar requests share blocks


class Buffers:
    """One thread takes; any thread may drop what was taken."""

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._free: dict[int, NDArray[np.uint8]] = {}

    def take(self, *shape: int) -> torch.Tensor:
        """An uninitialised uint8 tensor, in pinned memory where asked for."""
        size = math.prod(shape)
        block = self._fitting(size)
        view: NDArray[np.uint8] = block[:size]
        back = weakref.finalize(view, self._free.__setitem__, id(block), block)
        back.atexit = False
        return torch.from_numpy(view).view(shape)

    @property
    def free_bytes(self) -> int:
        """Memory that waits for its next use."""
        return sum(block.nbytes for block in self._free.copy().values())

    def _fitting(self, size: int) -> NDArray[np.uint8]:
        """The smallest free block that is large enough, or a new one in place of a small one."""
        free = self._free.copy()  # finalizers add to it at any moment, in any thread
        large = [key for key, block in free.items() if size <= block.nbytes]
        if large:
            return self._free.pop(min(large, key=lambda key: free[key].nbytes))
        if free:
            del self._free[max(free, key=lambda key: free[key].nbytes)]
        if not self._pinned:
            return np.empty(_rounded(size), np.uint8)  # unlike torch, numpy asks for huge pages
        memory = torch.empty(_rounded(size), dtype=torch.uint8, pin_memory=True)
        block: NDArray[Any] = memory.numpy()
        return block


def _rounded(size: int) -> int:
    """
    >>> _rounded(5), _rounded(1000), _rounded(1025)
    (5, 1024, 1152)
    """
    step = 1 << max(0, (size - 1).bit_length() - GRAIN.bit_length())
    return -(-size // step) * step


RGB: Final = 3
MILLISECOND: Final = 1e-3


class Target(Protocol):
    """Memory for decoded chunks, and the way there."""

    device: torch.device

    def room(self, images: int, size: int) -> torch.Tensor:
        """Memory for that many images, images x size x size x 3."""
        ...

    def job(self, spots: Spots, room: torch.Tensor, *, direct: bool) -> Job:
        """The job whose pixels end up in `room`; `direct` if the decoder writes to the device."""
        ...

    def arrived(self, job: Job, room: torch.Tensor) -> None:
        """The consumer's own stream waits for the pixels; the consumer itself does not."""
        ...

    def copied(self) -> float:
        """Seconds of copying to the device that ended since the last call."""
        ...


class Host:
    """Decoders write straight into what the consumer gets."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._buffers = Buffers(pinned=False)

    def room(self, images: int, size: int) -> torch.Tensor:
        return self._buffers.take(images, size, size, RGB)

    def job(self, spots: Spots, room: torch.Tensor, *, direct: bool) -> Job:  # noqa: ARG002
        return Job(spots, room)

    def arrived(self, job: Job, room: torch.Tensor) -> None:
        pass

    def copied(self) -> float:
        return 0.0


class Copy(NamedTuple):
    """One transfer under way; it keeps its source from being used again."""

    begin: torch.cuda.Event
    end: torch.cuda.Event
    source: torch.Tensor


class Cuda:
    """Pinned memory, and one stream for all copies: they overlap with the consumer's computing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers = Buffers(pinned=True)
        self._copies: deque[Copy] = deque()
        self._seconds = 0.0
        self._lock = threading.Lock()

    def room(self, images: int, size: int) -> torch.Tensor:
        with torch.cuda.stream(self._stream):
            return torch.empty(images, size, size, RGB, dtype=torch.uint8, device=self.device)

    def job(self, spots: Spots, room: torch.Tensor, *, direct: bool) -> Job:
        if direct:
            job = Job(spots, room)
            job.writable = self._stream.record_event()
            return job
        self._settle()
        source = self._buffers.take(*room.shape)
        return Job(spots, source, lambda job: self._copy(job, source, room))

    def _copy(self, job: Job, source: torch.Tensor, room: torch.Tensor) -> None:
        """Runs in the thread that decoded the chunk's last image, as soon as it has."""
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            begin = self._stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
            room.copy_(source, non_blocking=True)
            end = self._stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        job.event = end
        self._copies.append(Copy(begin, end, source))

    def arrived(self, job: Job, room: torch.Tensor) -> None:
        stream = torch.cuda.current_stream(self.device)
        if job.event is not None:
            stream.wait_event(job.event)
        room.record_stream(stream)  # keeps it from being used again before the consumer is done

    def copied(self) -> float:
        self._settle()
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _settle(self) -> None:
        """Let go of what has been copied."""
        with self._lock:
            while self._copies and self._copies[0].end.query():  # type: ignore[no-untyped-call]
                copy = self._copies.popleft()
                self._seconds += copy.begin.elapsed_time(copy.end) * MILLISECOND


def target_for(device: torch.device) -> Target:
    """Raises nothing: the loader has checked that the device is there."""
    return Cuda(device) if device.type == "cuda" else Host()
