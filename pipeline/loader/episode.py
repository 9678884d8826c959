"""An episode in the consumer's hands: its chunks arrive one after the other, while later ones are decoded.

Chunks arrive in one order: H, H-bar, query. Asking for a later one receives those before it too; they
wait in their side until they are asked for.
"""

from __future__ import annotations

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
from pipeline.loader.feed import DecodedChunk, EpisodeFeed
from pipeline.loader.memory import CHANNELS
from pipeline.loader.stream import EpisodeStart, EpisodeStream
from pipeline.loader.uploads import upload

NHWC_TO_NCHW: Final = (0, 3, 1, 2)


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
        self.host_positions = torch.from_numpy(order)
        self.host_labels = torch.from_numpy(side.labels[order])
        """Both as below, on the CPU: to bring them back from a GPU would make the host wait for it."""
        self.positions, self.labels = upload(self.host_positions, self.host_labels, device=feed.device)
        """int64: positions in the plan's support (or query), and labels, in the order of delivery."""
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
        return self.first(len(self))

    def first(self, count: int) -> torch.Tensor:
        """The first `count` images in the order of delivery, as soon as they are there.

        Of a side of up to 2048 images they are a view of its one tensor; a larger one is waited for and joined.
        """
        if not self._kept:
            return torch.cat([chunk.images for chunk in self])[:count]
        while self._read < count:
            self._chunks.append(self._next_chunk())
        if self._memory is None:
            return self._empty_chunk().images
        return self._memory.permute(NHWC_TO_NCHW)[:count]

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
