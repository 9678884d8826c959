"""The receiving end of a loader's stream: the chunks of one episode, in the order in which they were planned."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.loader.stream import EpisodeStart, EpisodeStream, PendingChunk
from pipeline.store.local import locate_samples

NONE_MASKED: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class DecodedChunk:
    """A chunk whose pixels are in place, except the masked ones."""

    begin: int
    end: int
    out: torch.Tensor
    side: torch.Tensor | None
    masked: NDArray[np.int64]


class EpisodeFeed:
    """Receives the chunks of one episode, handles their faults, and keeps them until they are read."""

    def __init__(self, start: EpisodeStart, stream: EpisodeStream) -> None:
        self.device = stream.parts.memory.device
        self.image_size = stream.image_size
        self.support: deque[DecodedChunk] = deque()
        self.query: deque[DecodedChunk] = deque()
        self.unread = start.chunks.count
        self._plan = start.plan
        self._parts = stream.parts
        self._stream: EpisodeStream | None = stream

    def receive(self) -> None:
        """Wait for the next chunk, of whichever side."""
        stream = self._stream
        if stream is None:
            raise UsageError(
                f"the loader has left episode {self._plan.number} for another and dropped what was "
                "unread; read an episode to its end before asking for the next"
            )
        begin = time.perf_counter()
        pending = self._take(stream)
        where, job = pending.where, pending.job
        stream.wait(job)
        metrics = self._parts.metrics
        metrics.waiting += time.perf_counter() - begin
        metrics.decoding += job.seconds
        metrics.images += len(where)
        metrics.faults += len(job.faults)
        if job.error is not None:
            raise job.error
        self._parts.memory.synchronize(job, pending.out)
        masked = self._handle_faults(stream, pending) if job.faults else NONE_MASKED
        decoded = DecodedChunk(where.begin, where.end, pending.out, pending.side, masked)
        (self.query if where.role == "query" else self.support).append(decoded)

    def leave(self) -> None:
        """Drop what is unread: it is taken off the stream, but not waited for."""
        stream, self._stream = self._stream, None
        while stream is not None and self.unread:
            self._take(stream)

    def detach(self) -> None:
        """Receive nothing further: the stream itself is dropped."""
        self._stream = None

    def _take(self, stream: EpisodeStream) -> PendingChunk:
        """The next chunk, decoded or not."""
        self.unread -= 1
        item = stream.next()
        if isinstance(item, PendingChunk):
            return item
        assert not isinstance(item, EpisodeStart)
        assert item.error is not None  # a sampler ends between episodes only
        raise item.error

    def _handle_faults(self, stream: EpisodeStream, pending: PendingChunk) -> NDArray[np.int64]:
        """Replace the faulty samples, or return their positions in the chunk if they are masked."""
        job, policy = pending.job, self._parts.policy
        policy.check(self._plan, job, self._parts.metrics)
        faulty = np.array([fault.at for fault in job.faults])
        if policy.on_error == "mask":
            return faulty
        for at in faulty:
            self._replace(stream, int(job.locations.rows[at]), pending.out[at : at + 1])
        return NONE_MASKED

    def _replace(self, stream: EpisodeStream, row: int, out: torch.Tensor) -> None:
        dataset, policy = self._parts.shards[self._plan.dataset], self._parts.policy
        for other in policy.substitutes(self._plan, dataset, row):
            job = stream.decode(locate_samples(dataset, self.image_size, np.array([other])), out)
            if job.error is not None:
                raise job.error
            if not job.faults:
                self._parts.memory.synchronize(job, out)
                return
        policy.raise_no_substitute(self._plan, dataset, row)
