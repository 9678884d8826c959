"""An episode's samples in reading order, split into chunks: H, then H-bar, then the query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan, Side
from pipeline.index import SampleIndex

ChunkRole: TypeAlias = Literal["h", "rest", "query"]
RESIDENT_IMAGES: Final = 2048  # a side of up to so many is one tensor, a larger one a tensor per chunk


class RowLocations(NamedTuple):
    """The shard of each row of an index, and its offset in the shard."""

    shards: NDArray[Any]
    offsets: NDArray[Any]


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """One chunk: positions `begin` up to `end` of its side's reading order."""

    role: ChunkRole
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeChunks:
    """The reading order of both sides, and the chunks in it.

    Within H, H-bar and the query, clips (or single images) are in the order of the shards, so that a
    chunk reads from few places. A sliding query keeps the plan's order, as each frame needs those before it.
    """

    support: NDArray[np.int64]
    """Positions in the plan's support, H first."""
    query: NDArray[np.int64]
    h: int
    """Support images in H."""
    chunk: int
    """Images in a chunk at most, H excepted."""

    @property
    def count(self) -> int:
        """The number of chunks."""
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[ChunkRange]:
        """The chunks in the order of delivery; none is empty."""
        if self.h:
            yield ChunkRange("h", 0, self.h)
        yield from _chunk_ranges("rest", self.h, len(self.support), self.chunk)
        yield from _chunk_ranges("query", 0, len(self.query), self.chunk)


def plan_chunks(
    plan: EpisodePlan, index: SampleIndex, size: int, h: NDArray[np.int64], chunk: int
) -> EpisodeChunks:
    """Put an episode's samples in reading order, those at `h` first, in chunks of `chunk` at most."""
    locations = RowLocations(index["shard"], index[f"offset_{size}"])
    rest = np.ones(len(plan.support), np.bool_)
    rest[h] = False
    halves = (h, np.flatnonzero(rest))
    support = [_in_stored_order(plan.support, half, plan.clip, locations) for half in halves]
    query = np.arange(len(plan.query))
    if plan.query_clips == "blocks":
        query = _in_stored_order(plan.query, query, plan.clip, locations)
    whole_clips = max(chunk // plan.clip, 1) * plan.clip
    return EpisodeChunks(np.concatenate(support), query, len(h), whole_clips)


def _in_stored_order(
    side: Side, positions: NDArray[np.int64], clip: int, locations: RowLocations
) -> NDArray[np.int64]:
    """Positions of a side, clip by clip in the order in which the clips are stored."""
    clips = positions.reshape(-1, clip)
    first = side.rows[clips[:, 0]]
    return clips[np.lexsort((locations.offsets[first], locations.shards[first]))].ravel()


def _chunk_ranges(role: ChunkRole, begin: int, end: int, chunk: int) -> Iterator[ChunkRange]:
    for start in range(begin, end, chunk):
        yield ChunkRange(role, start, min(start + chunk, end))
