"""Whether two samples, or a sample and equal chances, could come from one distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEAST_IN_BIN = 20  # values in a bin, of both samples together
MOST_OWN_BINS = 60  # different values


def tail_probability(statistic: float, freedom: int) -> float:
    """How likely a chi-square of so many degrees of freedom is as large as this or larger.

    >>> round(tail_probability(3.841, 1), 3), round(tail_probability(18.307, 10), 3), tail_probability(0.0, 4)
    (0.05, 0.05, 1.0)
    """
    half = statistic / 2
    order, tail = (0.5, math.erfc(math.sqrt(half))) if freedom % 2 else (1.0, math.exp(-half))
    while order < freedom / 2:  # Q(a + 1, x) = Q(a, x) + x^a e^-x / Gamma(a + 1)
        if half > 0:
            tail += math.exp(order * math.log(half) - half - math.lgamma(order + 1))
        order += 1
    return tail


def same_distribution(first: ArrayLike, second: ArrayLike, bins: int = 25) -> float:
    """The p-value of two samples of the same size; neighbouring values share a bin."""
    edges = _edges(np.concatenate([np.asarray(first), np.asarray(second)]), bins)
    counts = [
        np.bincount(np.searchsorted(edges, s, side="left"), minlength=len(edges) + 1) for s in (first, second)
    ]
    a, b = (c.astype(float) for c in counts)
    used = a + b > 0
    statistic = float(((a - b) ** 2 / np.where(used, a + b, 1)).sum())
    return tail_probability(statistic, int(used.sum()) - 1)


def equal_chances(counts: Sequence[int] | NDArray[np.int64]) -> float:
    """The p-value of counts whose expectations are equal."""
    found = np.asarray(counts, float)
    expected = found.mean()
    return tail_probability(float(((found - expected) ** 2 / expected).sum()), len(found) - 1)


def _edges(values: NDArray[np.int64], bins: int) -> NDArray[np.int64]:
    """Upper ends of bins that hold enough values each: a bin of its own where there are few values."""
    distinct, counts = np.unique(values, return_counts=True)
    enough = LEAST_IN_BIN if len(distinct) <= MOST_OWN_BINS else len(values) / bins
    edges, held = [], 0
    for value, count in zip(distinct[:-1], counts[:-1], strict=True):
        held += count
        if held >= enough:
            edges.append(value)
            held = 0
    if edges and held + counts[-1] < enough:
        edges.pop()
    return np.array(edges, np.int64)
