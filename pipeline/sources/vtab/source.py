"""VTAB-v2: eighteen tasks over fifteen datasets that TFDS prepares.

A source is a folder that TFDS has prepared (anywhere, by anyone: `<builder>/[<config>/]<version>/`), or
one with the original files, which TFDS' own builders then convert in a process of their own. Nothing
is downloaded.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.records import ClassRecord, Item, Pixels, Rejected, SourceFile, Survey
from pipeline.sources.base import Source, read_or_reject
from pipeline.sources.spans import SCRATCH
from pipeline.sources.tfrecords.framing import Buffer, feature_span, parse_example
from pipeline.sources.vtab.files import (
    PREPARED,
    Missing,
    configurations,
    found,
    missing,
    prepared_folders,
    raw_folder,
)
from pipeline.sources.vtab.roles import SPLITS, Roles, roles
from pipeline.sources.vtab.tasks import TASKS, VTAB_FAMILY, Protocol, Task
from pipeline.sources.vtab.tfds_folder import PreparedFolder, record_reader
from pipeline.sources.vtab.tfds_prepare import prepare

__all__ = ["TASKS", "VTAB_FAMILY", "Missing", "Task", "VtabSource", "found", "missing"]


@dataclass(frozen=True, kw_only=True)
class VtabSource(Source):
    """One task. A sample's `split` is VTAB's (800 train, 200 validation, test), `split_lite` LITE's.

    Converted archives are kept in `<root>/tfds`, or, where that cannot be written, in the scratch
    folder, which lasts as long as the build. The build's cap per class is the plan's business.
    """

    task: Task
    protocol: Protocol = "both"
    """Samples that no protocol asked for uses are left out."""
    check_archives: bool = True
    """False: convert archives whose checksums are not those that TFDS knows."""

    def survey(self) -> Survey:
        """The classes, and the records that are used; labels are read, pictures are not decoded."""
        folders = self._folders()
        classes = _classes(self.task, folders[0])
        used = [roles(self.task, self.protocol, folder) for folder in folders]
        items = chain.from_iterable(map(self._items, folders, used))
        files = tuple(
            SourceFile(name=file.name, bytes=file.stat().st_size)
            for folder in folders
            for file in sorted(folder.path.iterdir())
            if file.is_file()
        )
        return Survey(classes=classes, items=items, files=files)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """The encoded pictures as TFDS stores them; dSprites' decoded and brightened."""
        with record_reader(self.root, self.scratch) as read:
            for item in items:
                yield read_or_reject(item, lambda item: self._pixels(read(item), item))

    def _pixels(self, record: Buffer, item: Item) -> Pixels | Rejected:
        start, length = feature_span(record, "image")
        encoded = bytes(record[start : start + length])
        if self.task.scale == 1:
            return encoded
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                pixels: NDArray[np.uint8] = np.asarray(image.convert("L"))
                scaled: NDArray[np.uint8] = pixels * np.uint8(self.task.scale)
                return scaled
        except (OSError, SyntaxError) as error:
            return Rejected(item.name, f"cannot be decoded: {error}")

    def _folders(self) -> tuple[PreparedFolder, ...]:
        """The prepared folder of each configuration that is needed, made now if it must be."""
        needed = configurations(self.task, self.protocol)
        folders = prepared_folders(self.root, self.task, self.protocol, self.scratch)
        absent = [config for config in needed if config not in folders]
        if absent:
            raw = raw_folder(self.root, self.task)
            if raw is None:
                raise SourceMissing(str(missing(self.root, [self.task], self.protocol)[0]))
            names = ["/".join(filter(None, (self.task.builder, config))) for config in absent]
            prepare(names, raw, self._out(), check_archives=self.check_archives)
            folders = prepared_folders(self.root, self.task, self.protocol, self.scratch)
        return tuple(folders[config] for config in needed)

    def _out(self) -> Path:
        out = self.root / PREPARED
        if os.access(out if out.exists() else self.root, os.W_OK):
            return out
        if self.scratch is None:
            raise UsageError(f"{out} cannot be written, and there is no scratch folder instead")
        return self.scratch / PREPARED

    def _items(
        self, folder: PreparedFolder, by_protocol: tuple[Roles, Roles]
    ) -> Iterator[Item | Rejected]:
        prefix = _prefix(folder.path, self.root, self.scratch)
        title = "/".join(filter(None, (folder.builder, folder.config)))
        vtab, lite = by_protocol
        for split in vtab:
            wanted: list[int] = np.flatnonzero(vtab[split] | lite[split]).tolist()
            for record in folder.read(split, wanted):
                position = record.position
                name = f"{title}/{split}/{position}"
                label = _label(self.task, record.data)
                if isinstance(label, str):
                    yield Rejected(name, label)
                    continue
                yield Item(
                    name=name,
                    class_id=label,
                    split=SPLITS[vtab[split][position]],
                    file=prefix + record.shard,
                    offset=record.offset,
                    length=record.length,
                    frame=position,
                    split_lite=SPLITS[lite[split][position]],
                )


def _label(task: Task, data: Buffer) -> int | str:
    """The class, or why there is none."""
    try:
        label = task.label(parse_example(data))
    except (IntegrityError, KeyError, IndexError, ValueError) as error:
        return f"has no label ({type(error).__name__}: {error})"
    if 0 <= label < task.classes:
        return label
    return f"its label {label} is none of the {task.classes} classes"


def _classes(task: Task, folder: PreparedFolder) -> tuple[ClassRecord, ...]:
    names = task.bins or folder.class_names() or tuple(map(str, range(task.classes)))
    if len(names) != task.classes:
        raise IntegrityError(
            f"{task.name} has {task.classes} classes; {folder.path} names {len(names)}; "
            "is it the dataset it should be?"
        )
    return tuple(ClassRecord(name=name) for name in names)


def _prefix(path: Path, root: Path, scratch: Path | None) -> str:
    """What an item's file starts with."""
    for base, mark in ((root, ""), (scratch, SCRATCH)):
        if base is not None and path.is_relative_to(base):
            relative = path.relative_to(base).as_posix()
            return mark + (f"{relative}/" if relative != "." else "")
    return f"{path.as_posix()}/"
