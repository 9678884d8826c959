"""The eighteen tasks of VTAB-v2: the TFDS dataset of each, its records, and the files it needs.

Two conventions say which records are used: VTAB's own (google-research/task_adaptation: the first 800 of
the training part and the first 200 of the validation part as support, the official test set as query)
and LITE's (cambridge-mlg/LITE: the first 1000 training records, and the rest or the test set).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from pipeline.sources.facts import fact_rows
from pipeline.sources.vtab import labels

Protocol: TypeAlias = Literal["both", "vtab", "lite"]
Label: TypeAlias = Callable[[labels.Example], int]

SLICE_PATTERN: Final = re.compile(r"(\w+)(?:\[(\d*):(\d*)\])?")


class RecordSlice(NamedTuple):
    """A range of the records of one TFDS split, in the order on disk."""

    split: str
    start: int = 0
    stop: int | None = None


class RawFile(NamedTuple):
    """A file, or a folder if its name ends in "/", that the TFDS builder reads."""

    name: str
    bytes: int
    url: str
    manual: str
    """What to do by hand if downloading it is not enough."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VtabTask:
    """One task of the benchmark: a row of `facts/vtab_tasks.tsv`, and how its labels are derived."""

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
    """The published number of records in each split that is used."""
    train: tuple[RecordSlice, ...]
    validation: tuple[RecordSlice, ...]
    test: tuple[RecordSlice, ...]
    lite_train: tuple[RecordSlice, ...]
    lite_test: tuple[RecordSlice, ...]
    scale: int
    """The factor by which pixels are multiplied."""
    raw: tuple[RawFile, ...]
    """What the builder reads."""
    label: Label = labels.stored_label
    bins: tuple[str, ...] = ()
    """Class names if the label is derived; TFDS has the others."""


def _bin_names(what: str, bin_of: Callable[[int], int], values: int) -> tuple[str, ...]:
    members: dict[int, list[int]] = {}
    for value in range(values):
        members.setdefault(bin_of(value), []).append(value)
    return tuple(f"{what} {group[0]} to {group[-1]}" for group in members.values())


def _depth_bins() -> tuple[str, ...]:
    ends = zip(labels.CLEVR_DEPTHS, labels.CLEVR_DEPTHS[1:], strict=False)
    return tuple(f"depth {start:g} to {end:g}" for start, end in ends)


DERIVED_LABELS: Final[Mapping[str, tuple[Label, tuple[str, ...]]]] = {
    "clevr_count": (labels.clevr_count, tuple(f"{count} objects" for count in range(3, 11))),
    "clevr_distance": (labels.clevr_distance, _depth_bins()),
    "dsprites_orientation": (
        labels.dsprites_orientation,
        _bin_names("orientation", labels.orientation_bin, 40),
    ),
    "dsprites_location": (labels.dsprites_location, _bin_names("x", labels.location_bin, 32)),
    "smallnorb_azimuth": (
        labels.smallnorb_azimuth,
        tuple(f"azimuth {20 * step} degrees" for step in range(18)),
    ),
    "smallnorb_elevation": (
        labels.smallnorb_elevation,
        tuple(f"elevation {30 + 5 * step} degrees" for step in range(9)),
    ),
    "kitti_distance": (
        labels.kitti_distance,
        ("vehicle up to 8 m", "vehicle 8 to 20 m", "vehicle over 20 m", "no vehicle"),
    ),
}


def _table_rows(name: str) -> Iterator[list[str]]:
    """The rows of a table of facts in which "-" is an empty cell."""
    return (["" if cell == "-" else cell for cell in row] for row in fact_rows(name))


def parse_slices(text: str) -> tuple[RecordSlice, ...]:
    """Parse slices as TFDS writes them, such as "train[:800]"."""
    return tuple(_parse_slice(part) for part in text.split())


def _parse_slice(text: str) -> RecordSlice:
    match = SLICE_PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a slice such as train[:800]")
    split, start, stop = match.groups()
    return RecordSlice(split, int(start or 0), int(stop) if stop else None)


def _read_task(row: Mapping[str, str], raw: tuple[RawFile, ...]) -> VtabTask:
    label, bins = DERIVED_LABELS.get(row["task"], (labels.stored_label, ()))
    sizes = (size.split("=") for size in row["splits"].split())
    return VtabTask(
        name=row["task"],
        group=row["group"],
        builder=row["builder"],
        config=row["config"],
        lite_config=row["lite_config"],
        versions=tuple(row["versions"].split()),
        classes=int(row["classes"]),
        sizes={split: int(size) for split, size in sizes},
        train=parse_slices(row["train"]),
        validation=parse_slices(row["validation"]),
        test=parse_slices(row["test"]),
        lite_train=parse_slices(row["lite_train"]),
        lite_test=parse_slices(row["lite_test"]),
        scale=int(row["scale"]),
        raw=raw,
        label=label,
        bins=bins,
    )


def _read_tasks() -> dict[str, VtabTask]:
    raw: dict[str, list[RawFile]] = {}
    for builder, name, size, url, manual in _table_rows("vtab_downloads"):
        raw.setdefault(builder, []).append(RawFile(name, int(size), url, manual))
    columns, *rows = _table_rows("vtab_tasks")
    tasks = (dict(zip(columns, row, strict=True)) for row in rows)
    return {row["task"]: _read_task(row, tuple(raw[row["builder"]])) for row in tasks}


VTAB_TASKS: Final[Mapping[str, VtabTask]] = _read_tasks()
VTAB_FAMILY: Final = tuple(VTAB_TASKS)
