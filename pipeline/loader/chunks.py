"""An episode's samples in the order in which they are read, cut into chunks: H, H-bar, query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan, Side
from pipeline.index import Index

Role: TypeAlias = Literal["h", "rest", "query"]


class Places(NamedTuple):
    """Where each row of an index lies."""

    shards: NDArray[Any]
    offsets: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Cut:
    """One chunk: places `begin` up to `end` of its side's reading order."""

    role: Role
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """The reading order of both sides and how it is cut.

    Within H, H-bar and the query, clips (or single images) stand as they lie in the shards, so that one
    chunk reads few places. A sliding query keeps the plan's order: its frames are one another's past.
    """

    support: NDArray[np.int64]
    """Positions in the plan's support, H first."""
    query: NDArray[np.int64]
    h: int
    """How many of the support are H."""
    chunk: int

    @property
    def chunks(self) -> int:
        """How many there are."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Cut]:
        """In the order of delivery. No chunk is empty."""
        if self.h:
            yield Cut("h", 0, self.h)
        yield from _runs("rest", self.h, len(self.support), self.chunk)
        yield from _runs("query", 0, len(self.query), self.chunk)


def cut(plan: EpisodePlan, index: Index, size: int, h: NDArray[np.int64], chunk: int) -> Cuts:
    """`h`: positions in the support that come first. `chunk`: images in a chunk at most."""
    lies = Places(index["shard"], index[f"offset_{size}"])
    rest = np.ones(len(plan.support), np.bool_)
    rest[h] = False
    places = (_as_stored(plan.support, part, plan.clip, lies) for part in (h, np.flatnonzero(rest)))
    query = np.arange(len(plan.query))
    if plan.query_clips == "blocks":
        query = _as_stored(plan.query, query, plan.clip, lies)
    whole_clips = max(chunk // plan.clip, 1) * plan.clip
    return Cuts(np.concatenate([*places]), query, len(h), whole_clips)


def _as_stored(
    side: Side, positions: NDArray[np.int64], clip: int, lies: Places
) -> NDArray[np.int64]:
    clips = positions.reshape(-1, clip)
    first = side.rows[clips[:, 0]]
    return clips[np.lexsort((lies.offsets[first], lies.shards[first]))].ravel()


def _runs(role: Role, begin: int, end: int, chunk: int) -> Iterator[Cut]:
    for start in range(begin, end, chunk):
        yield Cut(role, start, min(start + chunk, end))
