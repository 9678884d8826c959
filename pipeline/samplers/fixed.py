"""Episodes of n classes with k support and q query images each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan
from pipeline.errors import UsageError, first_few
from pipeline.samplers.mixture import DatasetMixture, checked_seed, random_state
from pipeline.samplers.pool import Pool, draw_distinct
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)

ClassGroups: TypeAlias = "tuple[NDArray[np.int64], ...]"
"""The positions in a pool of each group of classes."""


class Fixed:
    """n-way k-shot episodes without end; `sampler[number]` depends on the seed and the number alone.

    shot: one number, or one for each class of an episode, assigned to its classes at random.
    An episode is of one dataset; several are drawn equally often, or by `weights`.
    Classes with fewer than `min_examples_in_class` images are left out.
    within: the classes of an episode are of one superclass (Omniglot: an alphabet; ORBIT: a user), each
    equally likely among those with enough classes.
    """

    def __init__(  # noqa: PLR0913  (all but the shard set by name)
        self,
        shards: ShardSet,
        *,
        split: str,
        way: int,
        shot: int | Sequence[int],
        query: int,
        seed: int = 0,
        datasets: Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        min_examples_in_class: int = 0,
        within: bool = False,
    ) -> None:
        shots = (shot,) if isinstance(shot, int) else tuple(shot)
        if min(way, query, *shots) < 1:
            raise UsageError(f"way, shot and query start at 1, got {way}, {shot} and {query}")
        if not isinstance(shot, int) and len(shots) != way:
            raise UsageError(f"{way} classes need one shot or {way}, got {len(shots)}: {shot}")
        self.seed = checked_seed(seed)
        self.split, self.way, self.shot, self.query = split, way, shot, query
        self._mixture = DatasetMixture.of(shards, split, datasets, weights, min_examples_in_class)
        for pool in self._mixture.pools:
            pool.require(classes=way, images=max(shots) + query)
        self._shots = np.array(shots * (way // len(shots)))  # not before the ways are known to be few
        self.within = within
        groups = [_superclass_groups(pool, way) for pool in self._mixture.pools if within]
        self._groups = [large for large, _ in groups]
        self.left_out = tuple(message for _, message in groups if message)
        """Which superclasses have too few classes, one message for each dataset."""
        for message in self.left_out:
            log.warning("%s", message)

    def __getitem__(self, number: int, /) -> EpisodePlan:
        random = random_state(self.seed, number)
        which = self._mixture.draw(random)
        pool = self._mixture.pools[which]
        members = np.arange(len(pool))
        if self.within:
            groups = self._groups[which]
            members = groups[int(random.randint(len(groups)))]
        classes = members[draw_distinct(random, np.array([len(members)]), np.array([self.way]))]
        return pool.plan(random, number, classes, self._shots, self.query)

    def __repr__(self) -> str:
        return (
            f"Fixed({self.split!r}, way={self.way}, shot={self.shot}, query={self.query}, "
            f"{'within superclasses, ' if self.within else ''}seed={self.seed}, of {self._mixture})"
        )


def _superclass_groups(pool: Pool, way: int) -> tuple[ClassGroups, str]:
    """The superclasses that an episode can be drawn from, and a message about those that are too small."""
    groups = pool.superclasses
    if not groups:
        raise UsageError(f"{pool}: its classes have no superclasses to draw within")
    large = tuple(group for _, group in sorted(groups.items()) if len(group) >= way)
    if not large:
        most = max(map(len, groups.values()))
        raise UsageError(
            f"{pool}: an episode of {way} classes of one superclass is asked for, and the largest of its "
            f"{len(groups)} superclasses has {most}; ask for fewer, or draw across superclasses"
        )
    small = sorted(name for name, group in groups.items() if len(group) < way)
    message = (
        f"{pool}: {len(small)} of {len(groups)} superclasses have fewer than {way} classes and are left "
        f"out: {first_few(small)}"
    )
    return large, message if small else ""
