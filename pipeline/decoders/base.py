"""The interface between loader and decoders: a job to decode one chunk, and its faults."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch

from pipeline.records import Encoding
from pipeline.store.local import SampleLocations


class SampleFault(NamedTuple):
    """A sample that could not be read or decoded; its row in `out` is zeros."""

    at: int
    """Position in the job."""
    reason: str


class DecodeJob:
    """One chunk to decode: a decoder fills the rows of `out`, and reports each piece of them once."""

    def __init__(
        self, locations: SampleLocations, out: torch.Tensor, done: Callable[[DecodeJob], None] | None = None
    ) -> None:
        self.locations = locations
        self.out = out
        """n x size x size x 3, uint8, contiguous; host memory unless the decoder `wants_device`."""
        self.writable: torch.cuda.Event | None = None
        """Set by the loader where `out` lies on the GPU: until this, earlier work still uses `out`."""
        self.event: torch.cuda.Event | None = None
        """Set by the decoder where `out` lies on the GPU: after this, the pixels are in `out`."""
        self.pieces = 1
        """Reports that are still to come; set by a decoder that cuts the job into several pieces."""
        self.faults: list[SampleFault] = []
        self.error: BaseException | None = None
        self.seconds = 0.0
        """Thread seconds that reading and decoding took."""
        self._done = done
        self._lock = threading.Lock()
        self._busy = threading.Lock()
        self._busy.acquire()

    @cached_property
    def pixels(self) -> memoryview:
        """The bytes of `out`, in host memory; made once, not for each piece of the job."""
        return self.out.numpy().reshape(-1).data

    def report(
        self, faults: Sequence[SampleFault] = (), seconds: float = 0.0, error: BaseException | None = None
    ) -> None:
        """Report that a piece's rows hold their pixels, except the faults, or that they cannot be filled.

        The last report ends the job, so no thread writes to its memory after that.
        """
        with self._lock:
            self.seconds += seconds
            self.error = self.error or error
            self.faults += faults
            self.pieces -= 1
            last = self.pieces == 0
        if last:
            self._finish()

    def _finish(self) -> None:
        self.faults = [] if self.error is not None else sorted(self.faults)
        try:
            if self._done is not None:
                self._done(self)
        except BaseException as error:  # noqa: BLE001 - for whoever waits for this chunk
            self.error = self.error or error
        self._busy.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the job is done, or so many seconds. Returns whether it is done."""
        done = self._busy.acquire(timeout=-1 if seconds is None else seconds)
        if done:
            self._busy.release()
        return done


class ChunkDecoder(Protocol):
    """Takes jobs in order and finishes each, from any thread."""

    def wants_device(self, encoding: Encoding) -> bool:
        """Whether `job.out` must lie on the GPU, because images of this encoding are decoded there."""
        ...

    def submit(self, job: DecodeJob) -> None:
        """Take a job; may block while too much is in flight."""
        ...

    def close(self) -> None:
        """Stop. Jobs that are not finished fail. Returns when no thread is left."""
        ...
