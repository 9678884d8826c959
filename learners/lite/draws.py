"""Which units (images or clips) of the support set or of the queries carry gradient, and with what weight.

Every draw but the papers' is unbiased: the expected weight of a unit, counting 0 when it is not drawn, is 1.
A draw depends on its arguments and the random generator alone.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from learners.labels import Labels

Scheme: TypeAlias = Literal["exact", "neyman", "stratified", "uniform", "none"]
QueryScheme: TypeAlias = Literal["neyman", "uniform"]
UNIFORM_SHARE: Final = 0.1  # the share of the chances that ignores the gradients' sizes


class UnitDraw(NamedTuple):
    """The drawn units, ascending, and the weight of each one's gradient."""

    units: NDArray[np.int64]
    weights: NDArray[np.float64]


def draw_support(
    scheme: Scheme, labels: Labels, h: int, rng: np.random.Generator, sizes: NDArray[np.float64] | None = None
) -> UnitDraw:
    """Draw `h` units without replacement; all of them, with weight 1, if there are no more.

    exact: every unit, whatever h is. none: no unit.
    uniform: any h, each with weight N / h.
    stratified: from each class in proportion to its units; weight k_c / n_c.
    neyman: from each class so that the variance is least, given `sizes`, the norm of the loss's gradient at
        each unit's feature; within a class in proportion to the sizes.
    If h is below the number of classes, the last two sample systematically along the units sorted by class.
    """
    total = len(labels)
    if scheme == "none" or (h == 0 and scheme != "exact"):
        return UnitDraw(np.empty(0, np.int64), np.empty(0))
    if takes_all(scheme, h, total):
        return UnitDraw(np.arange(total), np.ones(total))
    if scheme == "uniform":
        units = rng.choice(total, h, replace=False, shuffle=False)
        return UnitDraw(np.sort(units), np.full(h, total / h))
    known = sizes if scheme == "neyman" and _usable(sizes) else None
    usable = np.ones(total) if known is None else known
    if h < labels.way:
        return _draw_systematically(labels, h, rng, usable)
    means = np.bincount(labels.values, usable, labels.way) / labels.counts
    return _from_classes(labels, allocate(labels.counts, means, h), rng, known)


def takes_all(scheme: Scheme, h: int, total: int) -> bool:
    """Whether every unit is drawn, so that the draw is known beforehand."""
    return scheme == "exact" or (scheme != "none" and h >= total)


def draw_queries(
    scheme: QueryScheme, h: int, rng: np.random.Generator, sizes: NDArray[np.float64]
) -> UnitDraw:
    """Draw `h` queries without replacement, given the norm of the loss's gradient at each one's feature.

    uniform: any h, each with weight M / h.
    neyman: each with a chance in proportion to its size, and one over the chance as its weight.
    """
    total = len(sizes)
    if h >= total:
        return UnitDraw(np.arange(total), np.ones(total))
    if scheme == "uniform" or not _usable(sizes):
        units = rng.choice(total, h, replace=False, shuffle=False)
        return UnitDraw(np.sort(units), np.full(h, total / h))
    chances, order = _chances(sizes, h), rng.permutation(total)
    units = np.sort(order[systematic(chances[order], float(rng.random()))])
    return UnitDraw(units, 1 / chances[units])


def unweighted(labels: Labels, h: int, rng: np.random.Generator) -> UnitDraw:
    """The papers' draw: h random units, each with weight 1. Biased: h / N of the support's gradient remains."""
    size = min(h, len(labels))
    units = rng.choice(len(labels), size, replace=False, shuffle=False)
    return UnitDraw(np.sort(units), np.ones(size))


def balanced(labels: Labels, h: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw `h` units, balanced over classes, at least one of each; ascending."""
    size = min(max(h, labels.way), len(labels))
    return _from_classes(labels, allocate(labels.counts, 1 / labels.counts, size), rng).units


def allocate(counts: NDArray[np.int64], means: NDArray[np.float64], h: int) -> NDArray[np.int64]:
    """The number of units to draw from each class: at least one, `h` in total, with the least variance.

    The variance is the sum of (k_c s_c)^2 (1 / n_c - 1 / k_c), where k_c is the class's size and s_c the
    mean size of its units' gradients. It is convex in each n_c, so one unit at a time is optimal.
    """
    taken = np.ones(len(counts), np.int64)
    variance = (counts * means) ** 2
    for _ in range(h - len(counts)):
        gain = np.where(taken < counts, variance / (taken * (taken + 1)), -1)
        taken[gain.argmax()] += 1
    return taken


def inclusion(sizes: NDArray[np.float64], h: int) -> NDArray[np.float64]:
    """Inclusion probabilities in proportion to the sizes, none above 1, that add up to `h`."""
    chances = np.zeros(len(sizes))
    free = np.ones(len(sizes), np.bool_)
    while True:
        left = h - np.count_nonzero(~free)
        chances[free] = left * sizes[free] / sizes[free].sum()
        above = free & (chances >= 1)
        if not above.any():
            return chances
        chances[above] = 1
        free &= ~above


def systematic(chances: NDArray[np.float64], start: float) -> NDArray[np.int64]:
    """The positions at which the running sum of the chances passes start, start + 1, ...; 0 <= start < 1.

    Over all starts, each position is drawn with its own chance.
    """
    sure = np.flatnonzero(chances >= 1)
    rest = np.flatnonzero(chances < 1)
    ends = np.cumsum(chances[rest])
    wanted = int(np.rint(ends[-1])) if len(rest) else 0
    places = np.searchsorted(ends, start + np.arange(wanted), side="right")
    return np.concatenate([sure, rest[np.minimum(places, len(rest) - 1)]])


def _draw_systematically(
    labels: Labels, h: int, rng: np.random.Generator, sizes: NDArray[np.float64]
) -> UnitDraw:
    """Draw fewer units than classes: neighbours in the order are alike, and rarely drawn together."""
    total = len(labels)
    chances = _chances(sizes, h)
    shuffled = rng.permutation(total)
    rank = rng.permutation(labels.way)[labels.values[shuffled]]
    order = shuffled[np.argsort(rank, kind="stable")]
    units = np.sort(order[systematic(chances[order], float(rng.random()))])
    return UnitDraw(units, 1 / chances[units])


def _from_classes(
    labels: Labels,
    taken: NDArray[np.int64],
    rng: np.random.Generator,
    sizes: NDArray[np.float64] | None = None,
) -> UnitDraw:
    """Draw a given number of units of each class: uniformly, or in proportion to `sizes`."""
    weights = np.zeros(len(labels))
    for label, count in enumerate(taken.tolist()):
        own = np.flatnonzero(labels.values == label)
        if count == len(own):
            weights[own] = 1
        elif sizes is None:
            chosen = own[rng.choice(len(own), count, replace=False, shuffle=False)]
            weights[chosen] = len(own) / count
        else:
            order = own[rng.permutation(len(own))] if count > 1 else own
            chances = _chances(sizes[order], count)
            places = systematic(chances, float(rng.random()))
            weights[order[places]] = 1 / chances[places]
    units = np.flatnonzero(weights)
    return UnitDraw(units, weights[units])


def _chances(sizes: NDArray[np.float64], h: int) -> NDArray[np.float64]:
    """Each unit's chance to be among h: nearly in proportion to the sizes, and never zero."""
    known = sizes.sum() or 1.0
    return inclusion((1 - UNIFORM_SHARE) * sizes / known + UNIFORM_SHARE / len(sizes), h)


def _usable(sizes: NDArray[np.float64] | None) -> bool:
    """Whether the sizes give chances. A diverged loss is for the trainer to notice, not for the draw."""
    return sizes is not None and bool(np.isfinite(sizes).all() and sizes.any())
