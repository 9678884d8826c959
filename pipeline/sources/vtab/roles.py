"""Which records of a prepared dataset are support or query, under VTAB's convention and LITE's."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError
from pipeline.records import Split
from pipeline.sources.tfrecords.framing import parse_example
from pipeline.sources.vtab.sun397 import lite_split
from pipeline.sources.vtab.tasks import Protocol, Slice, Task
from pipeline.sources.vtab.tfds_folder import PreparedFolder

SPLITS: Final[tuple[Split, ...]] = ("", "train", "validation", "test")
TRAIN, VALIDATION, TEST = 1, 2, 3  # positions in it

Roles: TypeAlias = "dict[str, NDArray[np.uint8]]"
"""By TFDS split, for each of its records a position in `SPLITS` (dSprites has 737,280)."""

log = logging.getLogger(__name__)


def roles(task: Task, protocol: Protocol, folder: PreparedFolder) -> tuple[Roles, Roles]:
    """VTAB's and LITE's; a record that neither uses is 0 in both."""
    for split, published in task.sizes.items():
        if folder.size(split) != published:
            log.warning(
                "%s has %d records in %s and not the published %d: results may not be comparable",
                *(folder.path, folder.size(split), split, published),
            )
    vtab, lite = _nothing(task, folder), _nothing(task, folder)
    if protocol != "lite" and folder.config == task.config:
        parts = {TRAIN: task.train, VALIDATION: task.validation, TEST: task.test}
        _mark(vtab, parts, task, folder)
    if protocol != "vtab" and folder.config == task.lite_config:
        _mark(lite, {TRAIN: task.lite_train, TEST: task.lite_test}, task, folder)
        if not task.lite_train:
            _mark_drawn(lite, task, folder)
    return vtab, lite


def _nothing(task: Task, folder: PreparedFolder) -> Roles:
    return {split: np.zeros(folder.size(split), np.uint8) for split in task.sizes}


def _mark(
    found: Roles, parts: Mapping[int, tuple[Slice, ...]], task: Task, folder: PreparedFolder
) -> None:
    for role, slices in parts.items():
        for split, start, stop in slices:
            size = folder.size(split)
            end = size if stop is None else stop
            if not start < end <= size:
                raise IntegrityError(
                    f"{task.name} takes {split}[{start}:{'' if stop is None else stop}]; "
                    f"{folder.path} has {size:,} records in {split}, and should have "
                    f"{task.sizes[split]:,}: prepare it again from all of its files"
                )
            found[split][start:end] = role


def _mark_drawn(found: Roles, task: Task, folder: PreparedFolder) -> None:
    """SUN397: what LITE draws from all pictures, whatever TFDS split they are in."""
    log.warning(
        "sun397: LITE's split is drawn by LITE's rules, and cannot be LITE's very pictures "
        "(its folder was another, its drawing had no seed)"
    )
    places, labels, names = [], [], []
    for split, position, label, name in _listing(found, task, folder):
        places.append((split, position))
        labels.append(label)
        names.append(name)
    for role, positions in zip((TRAIN, TEST), lite_split(labels, names), strict=True):
        for split, position in map(places.__getitem__, positions):
            found[split][position] = role


def _listing(
    found: Roles, task: Task, folder: PreparedFolder
) -> Iterator[tuple[str, int, int, str]]:
    for split in found:
        for record in folder.read(split, range(folder.size(split))):
            example = parse_example(record.data)
            name = bytes(example["file_name"][0]).decode()  # type: ignore[arg-type]
            yield split, record.position, task.label(example), name
