"""Draws the dataset of an episode, where there are several."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.episodes import philox
from pipeline.errors import UsageError
from pipeline.samplers.pool import Pool
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class DatasetMixture:
    """Pools sorted by dataset name, and the probability of each."""

    pools: tuple[Pool, ...]
    ends: NDArray[np.float64]
    """Cumulative probabilities."""

    @classmethod
    def of(
        cls,
        shards: ShardSet,
        split: str,
        datasets: Sequence[str] | None,
        weights: Mapping[str, float] | None,
        min_examples_in_class: int,
    ) -> DatasetMixture:
        """The datasets named, or all that have the split; equally likely, or by weight."""
        names = _dataset_names(shards, split, datasets)
        shares = _dataset_weights(names, weights)
        pools = tuple(
            Pool.of(shards[name], split, min_examples_in_class=min_examples_in_class) for name in names
        )
        return cls(pools, np.cumsum(shares) / math.fsum(shares))

    def draw(self, random: np.random.RandomState) -> int:
        """Draw a pool; returns its position."""
        position = self.ends.searchsorted(random.random_sample(), side="right")
        return min(int(position), len(self.pools) - 1)  # the last end may round to below 1

    def __str__(self) -> str:
        shares = np.diff(self.ends, prepend=0.0)
        return ", ".join(f"{pool.name} {share:.3g}" for pool, share in zip(self.pools, shares, strict=True))


def random_state(seed: int, number: int) -> np.random.RandomState:
    """The random numbers of one episode. NumPy has promised never to change RandomState's streams."""
    return np.random.RandomState(philox(seed, number))


def checked_seed(seed: int) -> int:
    """The seed if it is valid; otherwise UsageError, now and not at the first episode."""
    philox(seed, 0)
    return seed


def _dataset_names(shards: ShardSet, split: str, datasets: Sequence[str] | None) -> list[str]:
    if datasets is not None:
        if isinstance(datasets, str) or not datasets or len(set(datasets)) < len(datasets):
            raise UsageError(f"datasets= takes a list of different names, got {datasets!r}")
        return sorted(datasets)
    names = shards.with_split(split)
    if not names:
        raise UsageError(
            f"no dataset of {shards.root} has the split {split!r}; it has {', '.join(shards.datasets)}"
        )
    if others := sorted(set(shards.datasets) - set(names)):
        log.info("no images for %s in: %s", split, ", ".join(others))
    return sorted(names)


def _dataset_weights(names: Sequence[str], weights: Mapping[str, float] | None) -> list[float]:
    if weights is None:
        return [1.0] * len(names)
    if set(weights) != set(names):
        raise UsageError(
            f"weights= needs one weight for each of {', '.join(names)}; got {', '.join(weights)}"
        )
    if not all(0 < weight < math.inf for weight in weights.values()):
        raise UsageError(f"weights are positive numbers, got {dict(weights)}")
    return [float(weights[name]) for name in names]
