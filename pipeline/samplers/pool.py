"""The classes of one dataset and split, and how images of them are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan, Side
from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.records import SPLITS

try:
    from pipeline.samplers.native import deal
except ImportError:  # not compiled: that takes a C compiler
    deal = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """The classes of a split that have enough images, numbered from 0 by position."""

    dataset: Dataset
    split: str
    """ "" for all splits."""
    class_ids: NDArray[np.int64]
    """The number of each class in the manifest."""
    counts: NDArray[np.int64]
    """Images of each class in this split."""
    starts: NDArray[np.int64]
    """The first row of each class in the index, or in `rows`."""
    rows: NDArray[np.int64] | None
    """The split's rows, sorted by class; None if each class is in the split as a whole."""

    @classmethod
    def of(cls, dataset: Dataset, split: str = "", *, min_examples_in_class: int = 0) -> Pool:
        """The pool of a split. Raises UsageError if the dataset lacks the split."""
        if split not in SPLITS:
            raise UsageError(f"a split is one of {', '.join(map(repr, SPLITS))}; got {split!r}")
        index, records = dataset.index, dataset.manifest.classes
        bounds, rows = index.class_starts, None
        member = np.ones(len(records), np.bool_)
        if split:
            rows = np.flatnonzero(index.is_word("split", split))
            bounds = np.searchsorted(index["class_id"][rows], np.arange(len(records) + 1))
            declared = np.array([record.split == split for record in records], np.bool_)
            member = declared | (np.diff(bounds) > 0)
            if np.array_equal(np.diff(bounds)[member], np.diff(index.class_starts)[member]):
                bounds, rows = index.class_starts, None
        if not member.any():
            held = ", ".join(map(repr, dataset.manifest.splits))
            raise UsageError(f"{dataset.manifest.name} has nothing in the split {split!r}; it has {held}")
        counts = np.diff(bounds)
        ids = np.flatnonzero(member & (counts >= min_examples_in_class))
        return cls(dataset, split, ids, counts[ids], bounds[ids], rows)

    def __len__(self) -> int:
        return len(self.class_ids)

    def __str__(self) -> str:
        return f"{self.name}, {self.split or 'all splits'}"

    @property
    def name(self) -> str:
        """The name of the dataset."""
        return self.dataset.manifest.name

    @property
    def superclasses(self) -> dict[str, NDArray[np.int64]]:
        """The positions of each superclass's classes; none unless all classes have a superclass."""
        records = self.dataset.manifest.classes
        groups: dict[str, list[int]] = {}
        for position, class_id in enumerate(self.class_ids):
            groups.setdefault(records[class_id].superclass, []).append(position)
        return {} if "" in groups else {name: np.array(own, np.int64) for name, own in groups.items()}

    def require(self, *, classes: int, images: int) -> None:
        """Raise UsageError unless there are this many classes, each with this many images."""
        if len(self) < classes:
            raise UsageError(
                f"an episode of {classes} classes is asked for and {self} has {len(self)} to choose "
                "from; ask for fewer, lower min_examples_in_class, or leave it out with datasets="
            )
        fewest = int(self.counts.argmin())
        if self.counts[fewest] < images:
            record = self.dataset.manifest.classes[self.class_ids[fewest]]
            raise UsageError(
                f"an episode needs {images} images of each class, and class {record.name!r} of {self} "
                f"has {self.counts[fewest]}; ask for fewer images, or leave out the "
                f"{int((self.counts < images).sum())} such classes with min_examples_in_class={images}"
            )

    def plan(
        self,
        random: np.random.RandomState,
        number: int,
        classes: NDArray[np.int64],
        shots: NDArray[np.int64] | int,
        query: int,
    ) -> EpisodePlan:
        """Draw the images of an episode of these classes (positions).

        `shots`: support images of each class, one number or one for each. `query`: query images of each.
        """
        shots = np.full(len(classes), shots) if isinstance(shots, int) else shots
        taken = shots + query
        steps = steps_within(taken)
        rows = self.starts[classes].repeat(taken) + draw_distinct(random, self.counts[classes], taken)
        if self.rows is not None:
            rows = self.rows[rows]
        labels = np.arange(len(classes)).repeat(taken)
        support = steps < shots.repeat(taken)
        return EpisodePlan(
            number=int(number),
            dataset=self.name,
            classes=tuple(self.class_ids[classes].tolist()),
            support=Side(rows[support], labels[support]),
            query=Side(rows[~support], labels[~support]),
        )


def steps_within(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, ... up to each count, one after the other.

    >>> steps_within(np.array([3, 1, 2])).tolist()
    [0, 1, 2, 0, 0, 1]
    """
    total: NDArray[np.int64] = counts.cumsum()
    steps: NDArray[np.int64] = np.arange(total[-1]) - (total - counts).repeat(counts)
    return steps


def draw_distinct(
    random: np.random.RandomState, sizes: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each i, draw `counts[i]` different numbers below `sizes[i]`, one i after the other.

    Every order of every choice is equally likely. This is the Fisher-Yates shuffle stopped early, with a
    table of the cards that moved instead of the deck: the cost depends on how many images are drawn, and
    not on the size of the class.
    """
    decks = (sizes.cumsum() - sizes).repeat(counts)
    steps = steps_within(counts)
    chosen = random.randint(steps, sizes.repeat(counts), dtype=np.int64)
    return dealt_cards(decks + steps, decks + chosen) - decks


def dealt_cards(tops: NDArray[np.int64], places: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cards at these places, one by one; the card at the next of `tops` takes the place of each.

    >>> dealt_cards(np.array([0, 1, 2]), np.array([2, 2, 2])).tolist()
    [2, 0, 1]
    """
    if deal is not None:
        cards: NDArray[np.int64] = places.copy()
        deal(tops, cards)
        return cards
    moved: dict[int, int] = {}  # by place, the card that lies there now
    taken = []
    for top, place in zip(tops.tolist(), places.tolist(), strict=True):
        taken.append(moved.get(place, place))
        moved[place] = moved.get(top, top)
    return np.array(taken, np.int64)
