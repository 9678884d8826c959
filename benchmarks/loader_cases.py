"""The case that every contender of benchmarks/loader.py reads: the same episodes of the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.loader_data import shard_set
from pipeline.samplers.fixed import Fixed
from pipeline.shardset import ShardSet

READER_THREADS: Final = 2  # or worker processes, of every contender
EPISODE_WAY: Final = 20
QUERY_PER_CLASS: Final = 5
PLAIN_BATCH: Final = 256  # images, for contenders without episodes
SHUFFLE_BUFFER: Final = 1000  # images, of contenders without episodes


class LoadedImages(NamedTuple):
    """One episode or one batch that a contender delivered."""

    pixels: NDArray[np.uint8]
    """Some of the images: n x size x size x 3."""
    rows: NDArray[np.int64] | None
    """The rows of these in the index, where they are known."""
    images: int
    """The number of all images."""


def loaded_images(pixels: Any, rows: Any, images: int | None = None) -> LoadedImages:
    """Images of which `pixels` are all, unless their number is given."""
    return LoadedImages(pixels, rows, len(pixels) if images is None else images)


@dataclass(frozen=True)
class LoaderCase:
    """Image size and support size, the same for all contenders."""

    size: int
    support: int
    wait_for_start: Callable[[], None]
    """A contender calls it when all is imported; the clock starts when it returns."""

    @property
    def images(self) -> int:
        """Images of an episode, support and query."""
        return self.support + EPISODE_WAY * QUERY_PER_CLASS

    def sampler(self, opened: ShardSet) -> Fixed:
        """The sampler of the episodes."""
        shot = self.support // EPISODE_WAY
        return Fixed(opened, split="", way=EPISODE_WAY, shot=shot, query=QUERY_PER_CLASS)

    def episodes(self, encoding: str = "jpeg") -> EpisodeRows:
        """The rows of the episodes, for contenders that do not take our sampler."""
        return EpisodeRows(self.sampler(ShardSet.open(shard_set(encoding))))


@dataclass(frozen=True)
class EpisodeRows:
    """The rows of each episode, support and query, by number or in order."""

    sampler: Fixed

    def __getitem__(self, number: int) -> NDArray[np.int64]:
        plan = self.sampler[number]
        return np.concatenate([plan.support.rows, plan.query.rows])

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        return map(self.__getitem__, count())
