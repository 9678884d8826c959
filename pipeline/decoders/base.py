"""What the loader asks of a decoder: fill the rows of `job.out`, then say so, from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, Protocol

import torch

from pipeline.records import Encoding
from pipeline.store.local import Spots


class Fault(NamedTuple):
    """A sample whose pixels could not be had; its row in `out` is zeros."""

    at: int
    """Position in the job."""
    reason: str


class Job:
    """One chunk to decode. Its decoder calls `finish` or `fail`, once."""

    def __init__(
        self, spots: Spots, out: torch.Tensor, done: Callable[[Job], None] | None = None
    ) -> None:
        self.spots = spots
        self.out = out
        """n x size x size x 3, uint8, contiguous; host memory unless the decoder `wants_device`."""
        self.writable: torch.cuda.Event | None = None
        """Set by the loader where `out` lies on the GPU: before this, earlier work still uses it."""
        self.event: torch.cuda.Event | None = None
        """Set by the decoder where `out` lies on the GPU: from this on the pixels are there."""
        self.faults: Sequence[Fault] = ()
        self.error: BaseException | None = None
        self.seconds = 0.0
        """Thread seconds that reading and decoding took."""
        self._done = done
        self._busy = threading.Lock()
        self._busy.acquire()

    @cached_property
    def pixels(self) -> memoryview:
        """The bytes of `out`, in host memory; made once, for each piece of a job would pay for it."""
        return self.out.numpy().reshape(-1).data

    def finish(self, faults: Sequence[Fault] = ()) -> None:
        """Every row of `out` holds its pixels, but for these."""
        self.faults = sorted(faults)
        self._close()

    def fail(self, error: BaseException) -> None:
        """The chunk as a whole cannot be had: a shard is gone, the decoder is broken."""
        self.error = error
        self._close()

    def _close(self) -> None:
        try:
            if self._done is not None:
                self._done(self)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for this chunk
            self.error = self.error or error
        self._busy.release()

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it is done; waits that long at most."""
        done = self._busy.acquire(timeout=-1 if seconds is None else seconds)
        if done:
            self._busy.release()
        return done


class Decoder(Protocol):
    """Takes jobs in order and finishes each. `submit` may block while too much is in flight."""

    def wants_device(self, encoding: Encoding) -> bool:
        """Whether `job.out` must lie on the GPU for pictures stored so: their pixels are born there."""
        ...

    def submit(self, job: Job) -> None: ...

    def close(self) -> None:
        """Stop; every job submitted and not finished fails. Returns when no thread is left."""
        ...
