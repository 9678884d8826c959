"""A histogram of the classes by their number of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.show.facts import DatasetFacts

HISTOGRAM_BARS: Final = 28  # at most
LOGARITHMIC_RATIO: Final = 30  # largest over smallest class; above it, the scale is logarithmic


@dataclass(frozen=True, kw_only=True, slots=True)
class HistogramBar:
    """The classes with `first` to `last` images."""

    first: int
    last: int
    classes: Mapping[str, int]
    """By split."""

    @property
    def total(self) -> int:
        return sum(self.classes.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassSizeHistogram:
    """Bars from the smallest to the largest class; none if all classes are of one size."""

    bars: tuple[HistogramBar, ...]
    smallest: int
    median: int
    largest: int
    logarithmic: bool


def count_class_sizes(facts: DatasetFacts) -> ClassSizeHistogram:
    """Count classes in bars of equal width, or of equal ratio where sizes are very different."""
    sizes = facts.class_samples
    smallest, largest = int(sizes.min()), int(sizes.max())
    logarithmic = largest > LOGARITHMIC_RATIO * max(smallest, 1)
    edges = _bar_edges(smallest, largest, logarithmic=logarithmic)
    return ClassSizeHistogram(
        bars=tuple(_count_bars(facts, edges)) if smallest < largest else (),
        smallest=smallest,
        median=int(np.median(sizes)),
        largest=largest,
        logarithmic=logarithmic,
    )


def _bar_edges(smallest: int, largest: int, *, logarithmic: bool) -> NDArray[np.int64]:
    """The first number of images of each bar, and the end of the last; all are different."""
    if logarithmic:
        growing = np.geomspace(max(smallest, 1), largest + 1, HISTOGRAM_BARS + 1)
        growing[0] = smallest
        return np.unique(np.rint(growing).astype(np.int64))
    step = max(1, -(-(largest - smallest + 1) // HISTOGRAM_BARS))
    return np.array(range(smallest, largest + step + 1, step), np.int64)


def _count_bars(facts: DatasetFacts, edges: NDArray[np.int64]) -> list[HistogramBar]:
    splits = tuple(dict.fromkeys(facts.class_splits))
    codes = np.array([splits.index(split) for split in facts.class_splits])
    bins = np.searchsorted(edges, facts.class_samples, side="right") - 1
    counts = np.zeros((len(edges) - 1, len(splits)), np.int64)
    np.add.at(counts, (bins, codes), 1)
    return [
        HistogramBar(
            first=int(edges[place]),
            last=int(edges[place + 1]) - 1,
            classes={split: int(n) for split, n in zip(splits, row, strict=True) if n},
        )
        for place, row in enumerate(counts)
    ]
