"""How many classes have how many pictures, as bars."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.show.facts import Facts

BARS: Final = 28
SKEW: Final = 30  # largest over smallest class; beyond it, bars grow in width by a factor


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The classes with `first` to `last` pictures."""

    first: int
    last: int
    classes: Mapping[str, int]
    """By split."""

    @property
    def total(self) -> int:
        return sum(self.classes.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """Bars from the smallest to the largest class; none if all classes are of one size."""

    bars: tuple[Bar, ...]
    smallest: int
    median: int
    largest: int
    logarithmic: bool


def histogram(facts: Facts) -> Histogram:
    """Bars of equal width, or of equal ratio where sizes are very different."""
    sizes = facts.class_samples
    smallest, largest = int(sizes.min()), int(sizes.max())
    logarithmic = largest > SKEW * max(smallest, 1)
    edges = _edges(smallest, largest, logarithmic=logarithmic)
    return Histogram(
        bars=tuple(_bars(facts, edges)) if smallest < largest else (),
        smallest=smallest,
        median=int(np.median(sizes)),
        largest=largest,
        logarithmic=logarithmic,
    )


def _edges(smallest: int, largest: int, *, logarithmic: bool) -> NDArray[np.int64]:
    """First number of pictures of each bar, and the end; whole and different numbers."""
    if logarithmic:
        growing = np.geomspace(max(smallest, 1), largest + 1, BARS + 1)
        growing[0] = smallest
        return np.unique(np.rint(growing).astype(np.int64))
    step = max(1, -(-(largest - smallest + 1) // BARS))
    return np.array(range(smallest, largest + step + 1, step), np.int64)


def _bars(facts: Facts, edges: NDArray[np.int64]) -> list[Bar]:
    splits = tuple(dict.fromkeys(facts.class_splits))
    codes = np.array([splits.index(split) for split in facts.class_splits])
    bins = np.searchsorted(edges, facts.class_samples, side="right") - 1
    counts = np.zeros((len(edges) - 1, len(splits)), np.int64)
    np.add.at(counts, (bins, codes), 1)
    return [
        Bar(
            first=int(edges[place]),
            last=int(edges[place + 1]) - 1,
            classes={split: int(n) for split, n in zip(splits, row, strict=True) if n},
        )
        for place, row in enumerate(counts)
    ]
