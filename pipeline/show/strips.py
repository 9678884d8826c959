"""The classes and samples that a contact sheet shows: a few random classes, a few samples of each.

The cost depends on how much is shown and not on the dataset: rows are drawn from each class's slice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.index import Dataset
from pipeline.records import SPLITS
from pipeline.show.facts import DatasetFacts, class_splits, printable
from pipeline.show.stored_images import read_images
from pipeline.store.local import SampleStore

OBJECTS_PER_USER: Final = 3  # of a dataset of users' own objects
VIDEO_KINDS: Final = ("clean", "clutter")  # of ORBIT's videos
Entry = TypeVar("Entry")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassStrip:
    """A row of images of one class."""

    class_id: int
    class_name: str
    split: str
    samples: int
    """Of the class; not all are shown."""
    rows: tuple[int, ...]
    """Of the index."""
    user: str = ""
    kind: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetChapter:
    """What page and contact sheet show of one dataset."""

    dataset: Dataset
    facts: DatasetFacts
    strips: Sequence[ClassStrip]
    size: int
    """Pixels of the stored images that are shown."""
    store: SampleStore

    def read_images(self, strip: ClassStrip) -> Iterator[Image.Image]:
        """Read the images of a strip. Raises IntegrityError if one is damaged."""
        return read_images(self.store, self.dataset, self.size, strip.rows)


def has_user_videos(dataset: Dataset) -> bool:
    """Whether a dataset holds videos of users' own objects, as ORBIT does."""
    return any(kind in dataset.index.words["kind"] for kind in VIDEO_KINDS)


def choose_strips(dataset: Dataset, *, classes: int, samples: int, seed: int) -> list[ClassStrip]:
    """Choose random classes; the same seed gives the same ones."""
    generator = np.random.default_rng(seed)
    if has_user_videos(dataset):
        return list(_object_strips(dataset, classes, samples, generator))
    return list(_class_strips(dataset, classes, samples, generator))


def _class_strips(
    dataset: Dataset, classes: int, samples: int, generator: np.random.Generator
) -> Iterator[ClassStrip]:
    """Choose classes in proportion to the splits, in the order of the splits."""
    splits = class_splits(dataset)
    filled = np.flatnonzero(np.diff(dataset.index.class_starts)).tolist()
    rank = {c: (_split_rank(splits[c]), generator.random()) for c in filled}
    chosen = _spaced_entries(sorted(filled, key=rank.__getitem__), classes, generator)
    for class_id in sorted(chosen, key=lambda c: (_split_rank(splits[c]), c)):
        place = dataset.index.rows_of(class_id)
        rows = np.arange(place.start, place.stop)
        chosen_rows = generator.choice(rows, min(samples, len(rows)), replace=False)
        yield _make_strip(dataset, class_id, splits[class_id], np.sort(chosen_rows), "")


def _object_strips(
    dataset: Dataset, classes: int, samples: int, generator: np.random.Generator
) -> Iterator[ClassStrip]:
    """Choose users, a few objects of each, and clean and cluttered frames of each object."""
    index, splits = dataset.index, class_splits(dataset)
    filled = np.flatnonzero(np.diff(index.class_starts)).tolist()
    user_classes: dict[str, list[int]] = {}
    for class_id in filled:
        user = index.text("user", dataset.index.rows_of(class_id).start)
        user_classes.setdefault(user, []).append(class_id)
    users = sorted(user_classes, key=lambda user: (_split_rank(splits[user_classes[user][0]]), user))
    for user in _spaced_entries(users, -(-classes // OBJECTS_PER_USER), generator):
        for class_id in user_classes[user][:OBJECTS_PER_USER]:
            place = index.rows_of(class_id)
            for kind in VIDEO_KINDS:
                frames = place.start + np.flatnonzero(index.is_word("kind", kind)[place])
                if len(frames):
                    rows = _spaced_rows(frames, samples)
                    yield _make_strip(dataset, class_id, splits[class_id], rows, kind)


def _split_rank(split: str) -> int:
    return SPLITS.index(split) if split in SPLITS else len(SPLITS)


def _spaced_entries(ordered: list[Entry], count: int, generator: np.random.Generator) -> list[Entry]:
    """Pick `count` evenly spaced entries from a random start, so that each part has its share."""
    count = min(count, len(ordered))
    places = (np.arange(count) + generator.random()) * (len(ordered) / max(count, 1))
    return [ordered[place] for place in places.astype(int).tolist()]


def _spaced_rows(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Pick evenly spaced rows: frames from the beginning to the end of the videos."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows)))
    chosen: NDArray[np.int64] = rows[places.astype(int)]
    return chosen


def _make_strip(
    dataset: Dataset, class_id: int, split: str, rows: NDArray[np.int64], kind: str
) -> ClassStrip:
    index, record = dataset.index, dataset.manifest.classes[class_id]
    place = index.rows_of(class_id)
    total = place.stop - place.start
    if kind:
        total = int(np.count_nonzero(index.is_word("kind", kind)[place]))
    return ClassStrip(
        class_id=class_id,
        class_name=printable(record.words or record.name),
        split=split,
        samples=total,
        rows=tuple(rows.tolist()),
        user=printable(index.text("user", place.start)) if kind else "",
        kind=kind,
    )
