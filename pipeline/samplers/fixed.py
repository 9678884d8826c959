"""Episodes of n classes with k support and q query images each."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan
from pipeline.errors import UsageError
from pipeline.samplers.mixture import Mixture, checked_seed, random_state
from pipeline.samplers.pool import Pool, distinct
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)

Groups: TypeAlias = "tuple[NDArray[np.int64], ...]"
"""Positions in a pool, by group."""
NAMED: Final = 6  # groups in a message; the rest is counted


class Fixed:
    """n-way k-shot episodes without end; `sampler[number]` depends on the seed and the number alone.

    shot: one number, or one for each class of an episode, which are then handed out at random.
    Several datasets are drawn equally often, or by `weights`; an episode is of one of them.
    Classes with fewer than `min_examples_in_class` images are left out. `within`: the classes of an
    episode are of one superclass (Omniglot: an alphabet; ORBIT: a user), each equally likely among those
    with enough classes.
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
        shots = (shot,) * way if isinstance(shot, int) else tuple(shot)
        if min(way, query, *shots) < 1:
            raise UsageError(f"way, shot and query start at 1, got {way}, {shot} and {query}")
        if len(shots) != way:
            raise UsageError(f"{way} classes need one shot or {way}, got {len(shots)}: {shot}")
        self.seed = checked_seed(seed)
        self.split, self.way, self.shot, self.query = split, way, shot, query
        self._shots = np.array(shots)
        self._mixture = Mixture.of(shards, split, datasets, weights, min_examples_in_class)
        for pool in self._mixture.pools:
            pool.require(classes=way, images=max(shots) + query)
        self.within = within
        self._groups = [_groups(pool, way) for pool in self._mixture.pools] if within else []
        small = [_small(pool, way) for pool in self._mixture.pools] if within else []
        self.left_out = tuple(filter(None, small))
        """Which superclasses have too few classes, in words."""
        for words in self.left_out:
            log.warning("%s", words)

    def __getitem__(self, number: int, /) -> EpisodePlan:
        random = random_state(self.seed, number)
        place = self._mixture.draw(random)
        pool = self._mixture.pools[place]
        members = np.arange(len(pool))
        if self.within:
            groups = self._groups[place]
            members = groups[int(random.randint(len(groups)))]
        classes = members[distinct(random, np.array([len(members)]), np.array([self.way]))]
        return pool.plan(random, number, classes, self._shots, self.query)

    def __repr__(self) -> str:
        return (
            f"Fixed({self.split!r}, way={self.way}, shot={self.shot}, query={self.query}, "
            f"{'within superclasses, ' if self.within else ''}seed={self.seed}, of {self._mixture})"
        )


def _groups(pool: Pool, way: int) -> Groups:
    """The superclasses that an episode can be drawn from."""
    members = _members(pool)
    large = [np.array(own, np.int64) for _, own in sorted(members.items()) if len(own) >= way]
    if not large:
        most = max(map(len, members.values()))
        raise UsageError(
            f"{pool}: an episode of {way} classes of one superclass is asked for, and the largest of its "
            f"{len(members)} superclasses has {most}; ask for fewer, or draw across superclasses"
        )
    return tuple(large)


def _small(pool: Pool, way: int) -> str:
    """Which superclasses have too few classes, in words; "" if none has."""
    members = _members(pool)
    small = sorted(name for name, own in members.items() if len(own) < way)
    if not small:
        return ""
    more = " ..." if small[NAMED:] else ""
    return (
        f"{pool}: {len(small)} of {len(members)} superclasses have fewer than {way} classes and are left "
        f"out: {', '.join(small[:NAMED])}{more}"
    )


def _members(pool: Pool) -> dict[str, list[int]]:
    """Positions in a pool, by superclass."""
    members: dict[str, list[int]] = {}
    for position, class_id in enumerate(pool.class_ids):
        name = pool.dataset.manifest.classes[class_id].superclass
        if not name:
            raise UsageError(f"{pool}: its classes have no superclasses to draw within")
        members.setdefault(name, []).append(position)
    return members
