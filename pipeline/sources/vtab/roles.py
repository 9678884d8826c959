"""Which records of a prepared dataset are support or query, by VTAB's convention and by LITE's."""

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
from pipeline.sources.vtab.tasks import Protocol, RecordSlice, VtabTask
from pipeline.sources.vtab.tfds_folder import PreparedFolder

ROLE_SPLITS: Final[tuple[Split, ...]] = ("", "train", "validation", "test")
TRAIN, VALIDATION, TEST = 1, 2, 3  # positions in it

Roles: TypeAlias = "dict[str, NDArray[np.uint8]]"
"""By TFDS split, one position in `ROLE_SPLITS` for each record (dSprites has 737,280)."""

log = logging.getLogger(__name__)


def assign_roles(task: VtabTask, protocol: Protocol, folder: PreparedFolder) -> tuple[Roles, Roles]:
    """The roles by VTAB's convention and by LITE's; a record that neither uses is 0 in both."""
    for split, published in task.sizes.items():
        if folder.size(split) != published:
            log.warning(
                "%s has %d records in %s and not the published %d: results may not be comparable",
                *(folder.path, folder.size(split), split, published),
            )
    vtab, lite = _no_roles(task, folder), _no_roles(task, folder)
    if protocol != "lite" and folder.config == task.config:
        parts = {TRAIN: task.train, VALIDATION: task.validation, TEST: task.test}
        _mark_slices(vtab, parts, task, folder)
    if protocol != "vtab" and folder.config == task.lite_config:
        _mark_slices(lite, {TRAIN: task.lite_train, TEST: task.lite_test}, task, folder)
        if not task.lite_train:
            _mark_sun397(lite, task, folder)
    return vtab, lite


def _no_roles(task: VtabTask, folder: PreparedFolder) -> Roles:
    return {split: np.zeros(folder.size(split), np.uint8) for split in task.sizes}


def _mark_slices(
    roles: Roles, parts: Mapping[int, tuple[RecordSlice, ...]], task: VtabTask, folder: PreparedFolder
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
            roles[split][start:end] = role


def _mark_sun397(roles: Roles, task: VtabTask, folder: PreparedFolder) -> None:
    """SUN397: mark what LITE draws from all images, whatever their split in TFDS."""
    log.warning(
        "sun397: LITE's split is drawn by LITE's rules, and cannot be LITE's very pictures "
        "(its folder was another, its drawing had no seed)"
    )
    records, labels, names = [], [], []
    for split, position, label, name in _read_labels(roles, task, folder):
        records.append((split, position))
        labels.append(label)
        names.append(name)
    for role, positions in zip((TRAIN, TEST), lite_split(labels, names), strict=True):
        for split, position in map(records.__getitem__, positions):
            roles[split][position] = role


def _read_labels(roles: Roles, task: VtabTask, folder: PreparedFolder) -> Iterator[tuple[str, int, int, str]]:
    """Yield split, position, label and file name of every record."""
    for split in roles:
        for record in folder.read(split, range(folder.size(split))):
            example = parse_example(record.data)
            match example:
                case {"file_name": [bytes(name)], "label": [int()]}:
                    yield split, record.position, task.label(example), name.decode("utf-8", "replace")
                case _:
                    raise IntegrityError(
                        f"{folder.path}: record {record.position} of {split} has no label and file name; prepare "
                        "the dataset again"
                    )
