"""The eighteen tasks of VTAB-v2: which TFDS dataset, which of its records, and which files it takes.

Two conventions say which records: VTAB's own (google-research/task_adaptation; the first 800 of the
training part and the first 200 of the validation part as support, the official test set as query)
and LITE's (cambridge-mlg/LITE; the first 1000 training records, and the rest or the test set).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final, Literal, NamedTuple, TypeAlias

from pipeline.sources.vtab import labels

Protocol: TypeAlias = Literal["both", "vtab", "lite"]
Label: TypeAlias = Callable[[labels.Example], int]

SLICE: Final = re.compile(r"(\w+)(?:\[(\d*):(\d*)\])?")


class Slice(NamedTuple):
    """Records of one TFDS split, in the order in which they lie there."""

    split: str
    start: int = 0
    stop: int | None = None


class RawFile(NamedTuple):
    """A file, or a folder (its name ends in "/"), that the TFDS builder reads."""

    name: str
    bytes: int
    url: str
    manual: str
    """What to do by hand where fetching it is not enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One dataset of the benchmark: a row of `facts/vtab_tasks.tsv`, and how a class is made of it."""

    name: str
    group: str
    """natural, specialised or structured"""
    builder: str
    """The dataset's name in TFDS."""
    config: str
    lite_config: str
    versions: tuple[str, ...]
    classes: int
    sizes: Mapping[str, int]
    """Published number of records in each split that is used."""
    train: tuple[Slice, ...]
    validation: tuple[Slice, ...]
    test: tuple[Slice, ...]
    lite_train: tuple[Slice, ...]
    lite_test: tuple[Slice, ...]
    scale: int
    """Factor for the pixels."""
    raw: tuple[RawFile, ...]
    """What the builder reads."""
    label: Label = labels.stored
    bins: tuple[str, ...] = ()
    """Class names where the label is derived; TFDS knows the others."""


def _bins(what: str, bin_of: Callable[[int], int], values: int) -> tuple[str, ...]:
    members: dict[int, list[int]] = {}
    for value in range(values):
        members.setdefault(bin_of(value), []).append(value)
    return tuple(f"{what} {group[0]} to {group[-1]}" for group in members.values())


def _depths() -> tuple[str, ...]:
    ends = zip(labels.CLEVR_DEPTHS, labels.CLEVR_DEPTHS[1:], strict=False)
    return tuple(f"depth {start:g} to {end:g}" for start, end in ends)


DERIVED: Final[Mapping[str, tuple[Label, tuple[str, ...]]]] = {
    "clevr_count": (labels.clevr_count, tuple(f"{count} objects" for count in range(3, 11))),
    "clevr_distance": (labels.clevr_distance, _depths()),
    "dsprites_orientation": (
        labels.orientation,
        _bins("orientation", labels.orientation_bin, 40),
    ),
    "dsprites_location": (labels.location, _bins("x", labels.location_bin, 32)),
    "smallnorb_azimuth": (
        labels.azimuth,
        tuple(f"azimuth {20 * step} degrees" for step in range(18)),
    ),
    "smallnorb_elevation": (
        labels.elevation,
        tuple(f"elevation {30 + 5 * step} degrees" for step in range(9)),
    ),
    "kitti_distance": (
        labels.kitti_distance,
        ("vehicle up to 8 m", "vehicle 8 to 20 m", "vehicle over 20 m", "no vehicle"),
    ),
}


def _rows(name: str) -> Iterator[list[str]]:
    table = resources.files("pipeline.sources").joinpath(f"facts/{name}")
    lines = (line for line in table.read_text(encoding="utf-8").splitlines() if line[0] != "#")
    return (["" if cell == "-" else cell for cell in line.split("\t")] for line in lines)


def slices(text: str) -> tuple[Slice, ...]:
    """Slices as TFDS writes them: "train[:800]"."""
    return tuple(_slice(part) for part in text.split())


def _slice(text: str) -> Slice:
    match = SLICE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a slice such as train[:800]")
    split, start, stop = match.groups()
    return Slice(split, int(start or 0), int(stop) if stop else None)


def _task(row: Mapping[str, str], raw: tuple[RawFile, ...]) -> Task:
    label, bins = DERIVED.get(row["task"], (labels.stored, ()))
    sizes = (size.split("=") for size in row["splits"].split())
    return Task(
        name=row["task"],
        group=row["group"],
        builder=row["builder"],
        config=row["config"],
        lite_config=row["lite_config"],
        versions=tuple(row["versions"].split()),
        classes=int(row["classes"]),
        sizes={split: int(size) for split, size in sizes},
        train=slices(row["train"]),
        validation=slices(row["validation"]),
        test=slices(row["test"]),
        lite_train=slices(row["lite_train"]),
        lite_test=slices(row["lite_test"]),
        scale=int(row["scale"]),
        raw=raw,
        label=label,
        bins=bins,
    )


def _tasks() -> dict[str, Task]:
    raw: dict[str, list[RawFile]] = {}
    for builder, name, size, url, manual in _rows("vtab_downloads.tsv"):
        raw.setdefault(builder, []).append(RawFile(name, int(size), url, manual))
    columns, *rows = _rows("vtab_tasks.tsv")
    tasks = (dict(zip(columns, row, strict=True)) for row in rows)
    return {row["task"]: _task(row, tuple(raw[row["builder"]])) for row in tasks}


TASKS: Final[Mapping[str, Task]] = _tasks()
VTAB_FAMILY: Final = tuple(TASKS)
