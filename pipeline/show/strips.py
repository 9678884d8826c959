"""Which pictures a contact sheet shows: a few random classes, a few samples of each.

Costs depend on what is shown and not on how much there is: rows are drawn from each class's slice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.index import Dataset
from pipeline.records import SPLITS
from pipeline.show.facts import class_splits

OBJECTS_PER_USER: Final = 3  # of a dataset of users' own objects
KINDS: Final = ("clean", "clutter")
Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """A row of pictures of one class."""

    class_id: int
    class_name: str
    split: str
    samples: int
    """That there are; not all are shown."""
    rows: tuple[int, ...]
    """Of the index."""
    user: str = ""
    kind: str = ""


def choose(dataset: Dataset, *, classes: int, samples: int, seed: int) -> list[Strip]:
    """Strips of random classes; the same seed gives the same ones."""
    generator = np.random.default_rng(seed)
    if any(kind in dataset.index.words["kind"] for kind in KINDS):
        return list(_objects(dataset, classes, samples, generator))
    return list(_classes(dataset, classes, samples, generator))


def _classes(
    dataset: Dataset, classes: int, samples: int, generator: np.random.Generator
) -> Iterator[Strip]:
    """Random classes, each split with its share, in the order of the splits."""
    splits = class_splits(dataset)
    filled = np.flatnonzero(np.diff(dataset.index.class_starts)).tolist()
    rank = {c: (_rank(splits[c]), generator.random()) for c in filled}
    chosen = _spread(sorted(filled, key=rank.__getitem__), classes, generator)
    for class_id in sorted(chosen, key=lambda c: (_rank(splits[c]), c)):
        place = dataset.index.rows_of(class_id)
        rows = np.arange(place.start, place.stop)
        some = generator.choice(rows, min(samples, len(rows)), replace=False)
        yield _strip(dataset, class_id, splits[class_id], np.sort(some), "")


def _objects(
    dataset: Dataset, classes: int, samples: int, generator: np.random.Generator
) -> Iterator[Strip]:
    """Random users, a few objects of each, and of each object its clean and its cluttered frames."""
    index, splits = dataset.index, class_splits(dataset)
    filled = np.flatnonzero(np.diff(index.class_starts)).tolist()
    of_user: dict[str, list[int]] = {}
    for class_id in filled:
        user = index.text("user", dataset.index.rows_of(class_id).start)
        of_user.setdefault(user, []).append(class_id)
    users = sorted(of_user, key=lambda user: (_rank(splits[of_user[user][0]]), user))
    for user in _spread(users, -(-classes // OBJECTS_PER_USER), generator):
        for class_id in of_user[user][:OBJECTS_PER_USER]:
            place = index.rows_of(class_id)
            for kind in KINDS:
                found = place.start + np.flatnonzero(index.is_word("kind", kind)[place])
                if len(found):
                    yield _strip(dataset, class_id, splits[class_id], _even(found, samples), kind)


def _rank(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def _spread(ordered: list[Entry], count: int, generator: np.random.Generator) -> list[Entry]:
    """`count` evenly spaced entries from a random start, so that each part has its share."""
    count = min(count, len(ordered))
    places = (np.arange(count) + generator.random()) * (len(ordered) / max(count, 1))
    return [ordered[place] for place in places.astype(int).tolist()]


def _even(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Evenly spaced rows: frames from the beginning to the end of the videos."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    chosen: NDArray[np.int64] = rows[places.astype(int)]
    return chosen


def _strip(
    dataset: Dataset, class_id: int, split: str, rows: NDArray[np.int64], kind: str
) -> Strip:
    index, record = dataset.index, dataset.manifest.classes[class_id]
    place = index.rows_of(class_id)
    total = place.stop - place.start
    if kind:
        total = int(np.count_nonzero(index.is_word("kind", kind)[place]))
    return Strip(
        class_id=class_id,
        class_name=record.words or record.name,
        split=split,
        samples=total,
        rows=tuple(rows.tolist()),
        user=index.text("user", place.start) if kind else "",
        kind=kind,
    )
