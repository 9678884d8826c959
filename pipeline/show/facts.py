"""The numbers that describe a dataset, counted from its index; no image is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.index import Dataset
from pipeline.records import SPLITS

BYTE_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
UNIT_STEP: Final = 1000  # as disks are sold, and as `ls -h --si` counts
LONGEST_NAME: Final = 200  # characters that are shown of a name; file names have up to 255 bytes
SHORT_COUNT: Final = 100  # below it, a number has one digit after the point


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitFacts:
    """One split of a dataset."""

    name: str
    classes: int
    samples: int

    @property
    def label(self) -> str:
        return self.name or "no split"


@dataclass(frozen=True, kw_only=True, slots=True)
class SizeFacts:
    """One stored size."""

    size: int
    encoding: str
    bytes: int
    tars: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFacts:
    """One dataset in numbers."""

    name: str
    classes: int
    samples: int
    splits: tuple[SplitFacts, ...]
    sizes: tuple[SizeFacts, ...]
    quarantined: int
    users: int
    groups: int
    class_samples: NDArray[np.int64]
    """Samples of each class."""
    class_splits: tuple[str, ...]
    """The split of each class; "" where its samples are in several, or in none."""

    @property
    def bytes(self) -> int:
        return sum(size.bytes for size in self.sizes)


def dataset_facts(dataset: Dataset) -> DatasetFacts:
    """Count classes, splits, sizes, users and videos."""
    manifest, index = dataset.manifest, dataset.index
    encodings = dict(zip(manifest.recipe.sizes, manifest.recipe.encodings, strict=True))
    return DatasetFacts(
        name=printable(manifest.name),
        classes=len(manifest.classes),
        samples=len(index),
        splits=tuple(_split_facts(dataset)),
        sizes=tuple(
            SizeFacts(
                size=size,
                encoding=str(encodings[size]),
                bytes=sum(file.bytes for file in files),
                tars=len(files),
            )
            for size, files in manifest.shards.items()
        ),
        quarantined=len(manifest.quarantined),
        users=_count_distinct(dataset, "user"),
        groups=_count_distinct(dataset, "group"),
        class_samples=np.diff(index.class_starts),
        class_splits=class_splits(dataset),
    )


def _split_facts(dataset: Dataset) -> Iterable[SplitFacts]:
    index, words = dataset.index, dataset.index.words["split"]
    pairs = np.unique(index["class_id"].astype(np.int64) * len(words) + index["split"])
    classes = np.bincount(pairs % len(words), minlength=len(words))
    samples = np.bincount(index["split"], minlength=len(words))
    for name in sorted(words, key=lambda word: (*SPLITS, word).index(word)):
        code = words.index(name)
        if samples[code]:
            yield SplitFacts(name=name, classes=int(classes[code]), samples=int(samples[code]))


def class_splits(dataset: Dataset) -> tuple[str, ...]:
    """The split of each class, "" where there is not exactly one."""
    index, words = dataset.index, dataset.index.words["split"]
    present = np.zeros((len(dataset.manifest.classes), len(words)), bool)
    present[index["class_id"], index["split"]] = True
    only = np.where(present.sum(axis=1) == 1, present.argmax(axis=1), -1)
    return tuple(words[code] if code >= 0 else "" for code in only.tolist())


def _count_distinct(dataset: Dataset, column: str) -> int:
    """Count the different texts of a column, without the empty one."""
    words = dataset.index.words[column]
    used = np.bincount(dataset.index[column], minlength=len(words)) > 0
    return sum(bool(use) and word != "" for word, use in zip(words, used, strict=True))


def readable_bytes(count: float) -> str:
    """A number of bytes for people.

    >>> readable_bytes(999), readable_bytes(1500), readable_bytes(123_456_789)
    ('999 B', '1.5 kB', '123 MB')
    """
    power = 0
    while count >= UNIT_STEP and power < len(BYTE_UNITS) - 1:
        count, power = count / UNIT_STEP, power + 1
    digits = 1 if power and count < SHORT_COUNT else 0
    return f"{count:,.{digits}f} {BYTE_UNITS[power]}"


def printable(text: str) -> str:
    """A name from a shard set in one line for a terminal or a sheet, whoever wrote it.

    >>> printable("cat"), printable("two\\nlines"), printable("x" * 1000)[96:104]
    ('cat', 'two\\\\nlines', 'xxxx...x')
    """
    if len(text) > LONGEST_NAME:
        text = f"{text[: LONGEST_NAME // 2]}...{text[-LONGEST_NAME // 2 :]}"
    return one_line(text)


def one_line(text: str) -> str:
    """The text with its control characters spelled out, so that they do nothing to a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def plural(count: int, word: str) -> str:
    """A number and its noun.

    >>> plural(1, "class"), plural(2613, "picture"), plural(3, "class")
    ('1 class', '2,613 pictures', '3 classes')
    """
    ending = "" if count == 1 else "es" if word.endswith("s") else "s"
    return f"{count:,} {word}{ending}"


def totals_line(all_facts: Sequence[DatasetFacts]) -> str:
    """The whole set in one line."""
    parts = [
        plural(len(all_facts), "dataset"),
        plural(sum(f.classes for f in all_facts), "class"),
        plural(sum(f.samples for f in all_facts), "picture"),
        readable_bytes(sum(f.bytes for f in all_facts)),
    ]
    return ", ".join(parts)
