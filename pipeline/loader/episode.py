"""What the consumer holds: an episode whose chunks arrive one after the other.

Chunks arrive in one order (H, H-bar, query). Whoever asks for a later one first takes the earlier ones,
too; they wait in their side until they are asked for.
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
from pipeline.loader.chunks import Cuts
from pipeline.loader.memory import RGB
from pipeline.loader.receiver import Arrived, Receiver
from pipeline.loader.stream import RESIDENT, Opening

NCHW: Final = (0, 3, 1, 2)


class _Order(NamedTuple):
    """Of a side, in the order of delivery. Chunks cut out their part when asked: few ask for these."""

    positions: torch.Tensor
    valid: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some images of one side of an episode."""

    images: torch.Tensor
    """uint8, n x 3 x size x size, channels_last in memory."""
    labels: torch.Tensor
    """int64, 0 to way - 1."""
    _order: _Order
    _part: slice

    def __len__(self) -> int:
        return len(self.images)

    @property
    def positions(self) -> torch.Tensor:
        """int64: which of the plan's support (or query) rows these are."""
        return self._order.positions[self._part]

    @property
    def valid(self) -> torch.Tensor:
        """bool: False where a sample could not be had and `images` is zeros (`on_error="mask"`)."""
        return self._order.valid[self._part]


class Feed:
    """One episode's share of the stream: what arrived of each side and was not looked at yet."""

    def __init__(self, opening: Opening, receiver: Receiver) -> None:
        self.device = receiver.device
        self.image_size = receiver.image_size
        self.support: deque[Arrived] = deque()
        self.query: deque[Arrived] = deque()
        self._plan = opening.plan
        self._receiver: Receiver | None = receiver
        self.unread = opening.cuts.chunks

    def pull(self) -> None:
        """Wait for the next chunk, of whichever side."""
        if self._receiver is None:
            raise UsageError(
                f"the loader has left episode {self._plan.number} for another and dropped what was "
                "unread; read an episode to its end before asking for the next"
            )
        self.unread -= 1
        role, arrived = self._receiver.receive(self._plan)
        (self.query if role == "query" else self.support).append(arrived)

    def leave(self) -> None:
        """Drop what is unread; it is taken off the stream without being waited for."""
        receiver = self.abandon()
        while receiver is not None and self.unread:
            self.unread -= 1
            receiver.take()

    def abandon(self) -> Receiver | None:
        """Nothing further arrives: the stream itself is dropped."""
        receiver, self._receiver = self._receiver, None
        return receiver


class Delivery:
    """One side of an episode on its way: its labels at once, its pixels chunk by chunk.

    A side of up to 2048 images lies in one tensor and can be gone through again and again. A larger one
    (a whole test set, many videos) streams past once.
    """

    def __init__(
        self, feed: Feed, inbox: deque[Arrived], side: Side, order: NDArray[np.int64]
    ) -> None:
        self._feed = feed
        self._inbox = inbox
        self._kept = len(side) <= RESIDENT
        self._chunks: list[Chunk] = []  # those looked at, of a side that is kept
        self._seen = 0
        self._memory: torch.Tensor | None = None
        self.positions = torch.from_numpy(order).to(feed.device)
        """int64: which of the plan's rows stand where, in the order of delivery."""
        self.labels = torch.from_numpy(side.labels[order]).to(feed.device)
        """int64, in the order of delivery."""
        valid = torch.ones(len(side), dtype=torch.bool, device=feed.device)
        self._order = _Order(self.positions, valid)

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Chunk]:
        """The chunks, each as soon as it is there."""
        if self._kept:
            return self._again()
        if self._seen:
            raise UsageError(
                f"{self._seen:,} of these {len(self):,} images have streamed past: a side of more than "
                f"{RESIDENT:,} is gone through once; keep what you need of its chunks"
            )
        return self._once()

    @property
    def images(self) -> torch.Tensor:
        """All images in the order of delivery, uint8 n x 3 x size x size; waits for the last one."""
        chunks = list(self)
        if self._memory is not None:
            return self._memory.permute(NCHW)
        return torch.cat([chunk.images for chunk in chunks] or [self._nothing().images])

    @property
    def valid(self) -> torch.Tensor:
        """bool, in the order of delivery: which images are there; waits for the last one."""
        for _ in self:
            pass
        return self._order.valid

    def _again(self, begin: int = 0) -> Iterator[Chunk]:
        taken = begin
        while True:
            while taken >= len(self._chunks):
                if self._seen == len(self):
                    return
                self._chunks.append(self._next())
            yield self._chunks[taken]
            taken += 1

    def _once(self) -> Iterator[Chunk]:
        while self._seen < len(self):
            yield self._next()

    def _next(self) -> Chunk:
        """Look at the next chunk of this side, waiting for those before it."""
        while not self._inbox:
            self._feed.pull()
        arrived = self._inbox.popleft()
        part = slice(arrived.begin, arrived.end)
        if len(arrived.masked):
            places = torch.from_numpy(arrived.begin + arrived.masked)
            self._order.valid[places.to(self._feed.device)] = False
        self._memory = arrived.side
        self._seen = arrived.end
        images = arrived.room.permute(NCHW)
        return Chunk(images, self.labels[part], self._order, part)

    def _nothing(self) -> Chunk:
        size = self._feed.image_size
        none = torch.empty(0, size, size, RGB, dtype=torch.uint8, device=self._feed.device)
        return Chunk(none.permute(NCHW), self.labels[:0], self._order, slice(0))


class Support(Delivery):
    """The support set: H first, then the rest (H-bar)."""

    def __init__(self, feed: Feed, plan: EpisodePlan, cuts: Cuts) -> None:
        super().__init__(feed, feed.support, plan.support, cuts.support)
        self._h_images = cuts.h
        self._h: Chunk | None = None

    @property
    def h(self) -> Chunk:
        """The images that carry gradient, as one chunk; an empty one if h is 0."""
        if self._h is None:
            self._h = next(iter(self)) if self._h_images else self._nothing()
        return self._h

    @property
    def rest(self) -> Iterator[Chunk]:
        """H-bar: the other images, each chunk as soon as it is there."""
        if self._kept:
            return self._again(1 if self._h_images else 0)
        if self._h_images and not self._seen:
            _ = self.h
        if self._seen > self._h_images:
            return iter(self)  # which says that they have streamed past
        return self._once()


class Episode:
    """One episode: `support` and `query`, in classes 0 to way - 1."""

    def __init__(self, opening: Opening, receiver: Receiver) -> None:
        plan = opening.plan
        self.plan = plan
        self.feed = Feed(opening, receiver)
        self.support = Support(self.feed, plan, opening.cuts)
        self.query = Delivery(self.feed, self.feed.query, plan.query, opening.cuts.query)

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
