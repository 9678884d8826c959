"""An episode in the consumer's hands: its chunks arrive one after the other, while later ones are decoded.

Chunks arrive in one order: H, H-bar, query. Asking for a later one receives those before it too; they
wait in their side until they are asked for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan, Side
from pipeline.errors import UsageError
from pipeline.loader.chunks import RESIDENT_IMAGES, EpisodeChunks
from pipeline.loader.memory import CHANNELS
from pipeline.loader.stream import EpisodeStart, EpisodeStream, PendingChunk
from pipeline.store.local import locate_samples

NHWC_TO_NCHW: Final = (0, 3, 1, 2)
NONE_MASKED: Final = np.zeros(0, np.int64)


class _DeliveryOrder(NamedTuple):
    """A side's positions and validity in the order of delivery; a chunk takes its part when asked."""

    positions: torch.Tensor
    valid: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some images of one side of an episode."""

    images: torch.Tensor
    """uint8, n x 3 x size x size, channels_last in memory."""
    labels: torch.Tensor
    """int64, 0 to way - 1."""
    _order: _DeliveryOrder
    _part: slice

    def __len__(self) -> int:
        return len(self.images)

    @property
    def positions(self) -> torch.Tensor:
        """int64: the position of each image in the plan's support (or query)."""
        return self._order.positions[self._part]

    @property
    def valid(self) -> torch.Tensor:
        """bool: False where a sample could not be read and `images` is zeros (`on_error="mask"`)."""
        return self._order.valid[self._part]


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


class EpisodeImages:
    """One side of an episode: its labels at once, its images chunk by chunk as they arrive.

    A side of up to 2048 images is kept in one tensor and can be iterated again and again. A larger one
    (a whole test set, many videos) can be iterated once.
    """

    def __init__(
        self, feed: EpisodeFeed, inbox: deque[DecodedChunk], side: Side, order: NDArray[np.int64]
    ) -> None:
        self._feed = feed
        self._inbox = inbox
        self._kept = len(side) <= RESIDENT_IMAGES
        self._chunks: list[Chunk] = []  # those read so far, of a side that is kept
        self._read = 0  # images
        self._memory: torch.Tensor | None = None
        self.positions = torch.from_numpy(order).to(feed.device)
        """int64: positions in the plan's support (or query), in the order of delivery."""
        self.labels = torch.from_numpy(side.labels[order]).to(feed.device)
        """int64, in the order of delivery."""
        valid = torch.ones(len(side), dtype=torch.bool, device=feed.device)
        self._order = _DeliveryOrder(self.positions, valid)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks, each as soon as it is there."""
        if self._kept:
            return self._iterate_kept()
        if self._read:
            raise UsageError(
                f"{self._read:,} of these {len(self):,} images have streamed past: a side of more than "
                f"{RESIDENT_IMAGES:,} is gone through once; keep what you need of its chunks"
            )
        return self._iterate_once()

    @property
    def images(self) -> torch.Tensor:
        """All images in the order of delivery, uint8 n x 3 x size x size; waits for the last one."""
        chunks = list(self)
        if self._memory is not None:
            return self._memory.permute(NHWC_TO_NCHW)
        return torch.cat([chunk.images for chunk in chunks] or [self._empty_chunk().images])

    @property
    def valid(self) -> torch.Tensor:
        """bool, in the order of delivery: which images could be read; waits for the last one."""
        for _ in self:
            pass
        return self._order.valid

    def _iterate_kept(self, first: int = 0) -> Iterator[Chunk]:
        """The chunks from number `first` on."""
        number = first
        while True:
            while number >= len(self._chunks):
                if self._read == len(self):
                    return
                self._chunks.append(self._next_chunk())
            yield self._chunks[number]
            number += 1

    def _iterate_once(self) -> Iterator[Chunk]:
        while self._read < len(self):
            yield self._next_chunk()

    def _next_chunk(self) -> Chunk:
        """Read the next chunk of this side, waiting for those before it."""
        while not self._inbox:
            self._feed.receive()
        decoded = self._inbox.popleft()
        part = slice(decoded.begin, decoded.end)
        if len(decoded.masked):
            masked = torch.from_numpy(decoded.begin + decoded.masked)
            self._order.valid[masked.to(self._feed.device)] = False
        self._memory = decoded.side
        self._read = decoded.end
        return Chunk(decoded.out.permute(NHWC_TO_NCHW), self.labels[part], self._order, part)

    def _empty_chunk(self) -> Chunk:
        size = self._feed.image_size
        none = torch.empty(0, size, size, CHANNELS, dtype=torch.uint8, device=self._feed.device)
        return Chunk(none.permute(NHWC_TO_NCHW), self.labels[:0], self._order, slice(0))


class SupportImages(EpisodeImages):
    """The support set: H first, then the rest (H-bar)."""

    def __init__(self, feed: EpisodeFeed, plan: EpisodePlan, chunks: EpisodeChunks) -> None:
        super().__init__(feed, feed.support, plan.support, chunks.support)
        self._h_images = chunks.h
        self._h: Chunk | None = None

    @property
    def h(self) -> Chunk:
        """The images that carry gradient, as one chunk; an empty one if h is 0."""
        if self._h is None:
            self._h = next(iter(self)) if self._h_images else self._empty_chunk()
        return self._h

    @property
    def rest(self) -> Iterator[Chunk]:
        """H-bar: the other images, each chunk as soon as it is there."""
        if self._kept:
            return self._iterate_kept(1 if self._h_images else 0)
        if self._h_images and not self._read:
            _ = self.h
        if self._read > self._h_images:
            return iter(self)  # raises: they have streamed past
        return self._iterate_once()


class Episode:
    """One episode: `support` and `query`, in classes 0 to way - 1."""

    def __init__(self, start: EpisodeStart, stream: EpisodeStream) -> None:
        self.plan = start.plan
        self.feed = EpisodeFeed(start, stream)
        self.support = SupportImages(self.feed, start.plan, start.chunks)
        self.query = EpisodeImages(self.feed, self.feed.query, start.plan.query, start.chunks.query)

    @property
    def number(self) -> int:
        return self.plan.number

    @property
    def dataset(self) -> str:
        return self.plan.dataset

    @property
    def way(self) -> int:
        return self.plan.way

    def __repr__(self) -> str:
        return f"<{self.plan}>"
