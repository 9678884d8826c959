"""Memory for decoded pixels: on the CPU, or on a GPU behind pinned host memory."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.decoders.base import DecodeJob
from pipeline.store.local import SampleLocations

CHANNELS: Final = 3
BLOCK_GRAIN: Final = 8  # sizes are rounded up by an eighth at most, so that similar requests share blocks
SECONDS_PER_MILLISECOND: Final = 1e-3


class PixelMemory(Protocol):
    """Where the pixels of chunks are put, and how they get there."""

    device: torch.device

    def allocate(self, images: int, size: int) -> torch.Tensor:
        """Uninitialised memory on the device for so many images, images x size x size x 3."""
        ...

    def new_job(self, locations: SampleLocations, out: torch.Tensor, *, direct: bool) -> DecodeJob:
        """A job whose pixels end up in `out`; `direct` if the decoder writes to the device itself."""
        ...

    def synchronize(self, job: DecodeJob, out: torch.Tensor) -> None:
        """Make the consumer's CUDA stream, but not the consumer itself, wait for the pixels in `out`."""
        ...

    def take_copy_seconds(self) -> float:
        """Seconds of copying to the device that ended since the last call."""
        ...

    def take_stalled_seconds(self) -> float:
        """Seconds for which the consumer's CUDA stream waited for pixels, of waits that ended since the last call."""
        ...


class HostMemory:
    """The CPU's memory: decoders write straight into what the consumer gets."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._buffers = HostBuffers(pinned=False)

    def allocate(self, images: int, size: int) -> torch.Tensor:
        return self._buffers.take(images, size, size, CHANNELS)

    def new_job(self, locations: SampleLocations, out: torch.Tensor, *, direct: bool) -> DecodeJob:  # noqa: ARG002
        return DecodeJob(locations, out)

    def synchronize(self, job: DecodeJob, out: torch.Tensor) -> None:
        pass

    def take_copy_seconds(self) -> float:
        return 0.0

    def take_stalled_seconds(self) -> float:
        return 0.0


class TimedSpan(NamedTuple):
    """What a stream does between two events; holding `source` keeps it from being reused."""

    begin: torch.cuda.Event
    end: torch.cuda.Event
    source: torch.Tensor | None


class TimedSpans:
    """Spans of streams' time, summed as they end, without waiting for any. Any thread may call."""

    def __init__(self) -> None:
        self._open: deque[TimedSpan] = deque()
        self._seconds = 0.0
        self._lock = threading.Lock()

    def add(self, begin: torch.cuda.Event, end: torch.cuda.Event, source: torch.Tensor | None = None) -> None:
        """Watch a span, and hold its source until it ends."""
        self._open.append(TimedSpan(begin, end, source))

    def collect(self) -> None:
        """Sum up and let go of the oldest spans, as far as they have ended."""
        with self._lock:
            while self._open and self._open[0].end.query():  # type: ignore[no-untyped-call]
                span = self._open.popleft()
                self._seconds += span.begin.elapsed_time(span.end) * SECONDS_PER_MILLISECOND

    def take_seconds(self) -> float:
        """Seconds of the spans that ended since the last call."""
        self.collect()
        with self._lock:
            seconds, self._seconds = self._seconds, 0.0
        return seconds


class CudaMemory:
    """A GPU's memory, filled from pinned host memory on one CUDA stream, beside the consumer's kernels."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers = HostBuffers(pinned=True)
        self._copies = TimedSpans()
        self._stalls = TimedSpans()
        self._starting = threading.Lock()  # else another thread's copy would be between this one's events

    def allocate(self, images: int, size: int) -> torch.Tensor:
        with torch.cuda.stream(self._stream):
            return torch.empty(images, size, size, CHANNELS, dtype=torch.uint8, device=self.device)

    def new_job(self, locations: SampleLocations, out: torch.Tensor, *, direct: bool) -> DecodeJob:
        if direct:
            job = DecodeJob(locations, out)
            job.writable = self._stream.record_event()
            return job
        self._copies.collect()
        source = self._buffers.take(*out.shape)
        return DecodeJob(locations, source, lambda job: self._copy(job, source, out))

    def _copy(self, job: DecodeJob, source: torch.Tensor, out: torch.Tensor) -> None:
        """Start the copy; called by the thread that has just decoded the chunk's last image."""
        with self._starting, torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            begin = _timed_event(self._stream)
            out.copy_(source, non_blocking=True)
            end = _timed_event(self._stream)
        job.event = end
        self._copies.add(begin, end, source)

    def synchronize(self, job: DecodeJob, out: torch.Tensor) -> None:
        stream = torch.cuda.current_stream(self.device)
        if job.event is not None and not job.event.query():  # type: ignore[no-untyped-call]
            begin = _timed_event(stream)
            stream.wait_event(job.event)
            self._stalls.add(begin, _timed_event(stream))
        self._stalls.collect()
        out.record_stream(stream)  # keeps it from being reused before the consumer is done

    def take_copy_seconds(self) -> float:
        return self._copies.take_seconds()

    def take_stalled_seconds(self) -> float:
        return self._stalls.take_seconds()


def _timed_event(stream: torch.cuda.Stream) -> torch.cuda.Event:
    """An event at a stream's end, with its time."""
    event: torch.cuda.Event = stream.record_event(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
    return event


def pixel_memory(device: torch.device) -> PixelMemory:
    """The memory of a device that is known to be there."""
    return CudaMemory(device) if device.type == "cuda" else HostMemory()


class HostBuffers:
    """Host memory that is used again. One thread takes buffers; any thread may drop them."""

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._free: dict[int, NDArray[np.uint8]] = {}

    def take(self, *shape: int) -> torch.Tensor:
        """An uninitialised uint8 tensor; its memory comes back when its last view is gone."""
        size = math.prod(shape)
        block = self._fitting_block(size)
        view: NDArray[np.uint8] = block[:size]
        give_back = weakref.finalize(view, self._free.__setitem__, id(block), block)
        give_back.atexit = False
        return torch.from_numpy(view).view(shape)

    @property
    def free_bytes(self) -> int:
        """Memory that waits for its next use."""
        return sum(block.nbytes for block in self._free.copy().values())

    def _fitting_block(self, size: int) -> NDArray[np.uint8]:
        """The smallest free block that is large enough, or a new one in place of a small one."""
        free = self._free.copy()  # finalizers add to it at any moment, in any thread
        large = [key for key, block in free.items() if size <= block.nbytes]
        if large:
            return self._free.pop(min(large, key=lambda key: free[key].nbytes))
        if free:
            del self._free[max(free, key=lambda key: free[key].nbytes)]
        if not self._pinned:
            return np.empty(_rounded_up(size), np.uint8)  # unlike torch, numpy asks for huge pages
        memory = torch.empty(_rounded_up(size), dtype=torch.uint8, pin_memory=True)
        block: NDArray[Any] = memory.numpy()
        return block


def _rounded_up(size: int) -> int:
    """
    >>> _rounded_up(5), _rounded_up(1000), _rounded_up(1025)
    (5, 1024, 1152)
    """
    step = 1 << max(0, (size - 1).bit_length() - BLOCK_GRAIN.bit_length())
    return -(-size // step) * step
