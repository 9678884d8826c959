"""How many classes and images an episode of Meta-Dataset has: the published law, number by number.

The law is that of google-research/meta-dataset (Triantafillou et al., 2020, section 3 and appendix).
Random numbers are drawn from NumPy's RandomState in the published order, so that the same state gives
the same episodes, whatever its bit generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError

LOG_2 = math.log(2)


@dataclass(frozen=True, kw_only=True)
class EpisodeRules:
    """The numbers of the law; the defaults are the published ones."""

    min_way: int = 5
    max_way: int = 50
    max_query: int = 10
    """Query images of each class, at most; and at most half of the smallest class."""
    max_support: int = 500
    """Support images of an episode."""
    max_support_per_class: int = 100
    """What a class adds to the size of the support set, at most. It may still get a larger share of it."""
    log_weights: tuple[float, float] = (-LOG_2, LOG_2)
    """Classes share the support set in proportion to their size times exp(u), u uniform between these."""
    ignore_hierarchy_probability: float = 0.0
    """How often classes are drawn as if there were no hierarchy, 0 to 1."""
    max_spanning_leaves: int = 392
    """Nodes of a graph that span more classes are never drawn."""
    way: int | None = None
    """A fixed number of classes; only where classes are drawn without a hierarchy."""
    shot: int | tuple[int, int] | None = None
    """A fixed number of support images of each class, or a range from which one number is drawn for all."""
    query: int | None = None
    """A fixed number of query images of each class."""

    def __post_init__(self) -> None:
        counts = (self.min_way, self.max_query, self.max_support, self.max_support_per_class)
        fixed = (value for value in (self.way, self.query, *self.shots) if value is not None)
        if min(*counts, *fixed) < 1:
            raise UsageError(f"ways, shots, queries and their limits start at 1, got {self}")
        if self.min_way > self.max_way or sorted(self.shots) != list(self.shots):
            raise UsageError(f"a range goes from its lower to its upper end, got {self}")
        if not -math.inf < self.log_weights[0] <= self.log_weights[1] < math.inf:
            raise UsageError(f"log_weights go from lower to upper, got {self.log_weights}")
        if not 0 <= self.ignore_hierarchy_probability <= 1:
            raise UsageError(
                f"ignore_hierarchy_probability is 0 to 1, got {self.ignore_hierarchy_probability}"
            )

    @property
    def shots(self) -> tuple[int, ...]:
        """The ends of the range of fixed shots; () where shots vary by the law."""
        if self.shot is None:
            return ()
        return (self.shot,) if isinstance(self.shot, int) else self.shot

    @property
    def images(self) -> int:
        """Images that a class needs at least, whatever is drawn."""
        return max(self.shots, default=1) + (self.query or 1)


class EpisodeDraw(NamedTuple):
    """The classes of an episode, and how many images it has of each."""

    classes: NDArray[np.int64]
    """Positions in the pool, in the order of the labels."""
    shots: NDArray[np.int64]
    """Support images of each class."""
    query: int
    """Query images of each class."""


ClassChooser: TypeAlias = Callable[[np.random.RandomState, EpisodeRules], NDArray[np.int64]]
"""Draws the classes of an episode: see `hierarchy`."""


def draw_episode(
    random: np.random.RandomState, choose: ClassChooser, counts: NDArray[np.int64], rules: EpisodeRules
) -> EpisodeDraw:
    """Draw classes, then query images, then support images. `counts`: the images of each class."""
    classes = choose(random, rules)
    sizes = counts[classes]
    query = query_shots(sizes, rules)
    return EpisodeDraw(classes, _draw_shots(random, sizes, query, rules), query)


def draw_way(random: np.random.RandomState, classes: int, rules: EpisodeRules) -> int:
    """Draw how many of these classes an episode has."""
    if rules.way is not None:
        return rules.way
    return int(random.randint(rules.min_way, min(rules.max_way, classes) + 1))


def query_shots(sizes: NDArray[np.int64], rules: EpisodeRules) -> int:
    """Query images of each class."""
    if rules.query is not None:
        return rules.query
    smallest = int(sizes.min())
    free = smallest - max(rules.shots) if rules.shots else smallest // 2
    return min(rules.max_query, free)


def draw_support_size(
    random: np.random.RandomState, sizes: NDArray[np.int64], query: int, rules: EpisodeRules
) -> int:
    """Draw the size of the support set: one random fraction of what each class could give."""
    available = np.minimum(rules.max_support_per_class, sizes - query)
    size = np.floor(random.uniform() * available + 1).sum()
    return min(int(size), rules.max_support)


def support_shots(
    random: np.random.RandomState, sizes: NDArray[np.int64], query: int, support: int, rules: EpisodeRules
) -> NDArray[np.int64]:
    """Draw the support images of each class: one, and a noisy share of the rest, rounded down."""
    weights = sizes * np.exp(random.uniform(*rules.log_weights, size=len(sizes)))
    shares = np.floor(weights / weights.sum() * (support - len(sizes))).astype(np.int64) + 1
    shots: NDArray[np.int64] = np.minimum(shares, sizes - query)
    return shots


def _draw_shots(
    random: np.random.RandomState, sizes: NDArray[np.int64], query: int, rules: EpisodeRules
) -> NDArray[np.int64]:
    if rules.shot is None:
        support = draw_support_size(random, sizes, query, rules)
        return support_shots(random, sizes, query, support, rules)
    if isinstance(rules.shot, int):
        return np.full(len(sizes), rules.shot)
    low, high = rules.shot
    return np.full(len(sizes), random.randint(low, high + 1))
