"""VTAB-v2: eighteen tasks over fifteen datasets that TFDS prepares.

A source is a folder that TFDS has prepared anywhere (`<builder>/[<config>/]<version>/`), or one with
the original files, which the builders of TFDS then convert in a separate process. Nothing is downloaded.
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

from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.records import ClassRecord, Item, Pixels, Rejected, Survey
from pipeline.sources.archives import source_file
from pipeline.sources.base import Source, read_or_reject
from pipeline.sources.spans import SCRATCH, span_file
from pipeline.sources.tfrecords.framing import Buffer, feature_span, parse_example
from pipeline.sources.vtab.files import (
    PREPARED_FOLDER,
    missing_tasks,
    needed_configurations,
    prepared_folders,
    raw_folder,
)
from pipeline.sources.vtab.roles import ROLE_SPLITS, Roles, assign_roles
from pipeline.sources.vtab.tasks import Protocol, VtabTask
from pipeline.sources.vtab.tfds_folder import PreparedFolder, record_reader
from pipeline.sources.vtab.tfds_prepare import prepare_builders


@dataclass(frozen=True, kw_only=True)
class VtabSource(Source):
    """One task. A sample's `split` is VTAB's (800 train, 200 validation, test), `split_lite` LITE's.

    Converted datasets are kept in `<root>/tfds` or, if that cannot be written, in the scratch folder,
    which lasts as long as the build. The plan applies the build's limit per class.
    """

    task: VtabTask
    protocol: Protocol = "both"
    """Records that the chosen protocols do not use are left out."""
    check_archives: bool = True
    """If False, archives whose checksums TFDS does not know are converted too."""

    def survey(self) -> Survey:
        """List the classes and the records that are used; labels are read, images are not decoded."""
        folders = self._folders()
        classes = _class_records(self.task, folders[0])
        roles = [assign_roles(self.task, self.protocol, folder) for folder in folders]
        items = chain.from_iterable(map(self._items, folders, roles))
        files = tuple(
            source_file(file)
            for folder in folders
            for file in sorted(folder.path.iterdir())
            if file.is_file()
        )
        return Survey(classes=classes, items=items, files=files)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Yield the encoded images as TFDS stores them; those of dSprites decoded and brightened."""
        with record_reader(self.root, self.scratch) as read:
            for item in items:
                yield read_or_reject(item, lambda item: self._pixels(read(item), item))

    def _pixels(self, record: Buffer, item: Item) -> Pixels | Rejected:
        start, length = feature_span(record, "image")
        encoded = bytes(record[start : start + length])
        if self.task.scale == 1:
            return encoded
        try:
            with Image.open(io.BytesIO(encoded), formats=("PNG",)) as image:
                if image.width * image.height > PIXEL_LIMIT:
                    return Rejected(item.name, f"has more than {PIXEL_LIMIT:,} pixels")
                pixels: NDArray[np.uint8] = np.asarray(image.convert("L"))
                scaled: NDArray[np.uint8] = pixels * np.uint8(self.task.scale)
                return scaled
        except Exception as error:  # noqa: BLE001 - Pillow raises many kinds for bad bytes
            return Rejected(item.name, f"cannot be decoded: {error}")

    def _folders(self) -> tuple[PreparedFolder, ...]:
        """The prepared folder of each configuration that is needed, prepared now if it is not there."""
        needed = needed_configurations(self.task, self.protocol)
        folders = prepared_folders(self.root, self.task, self.protocol, self.scratch)
        absent = [config for config in needed if config not in folders]
        if absent:
            raw = raw_folder(self.root, self.task)
            if raw is None:
                raise SourceMissing(str(missing_tasks(self.root, [self.task], self.protocol)[0]))
            names = ["/".join(filter(None, (self.task.builder, config))) for config in absent]
            prepare_builders(names, raw, self._output_folder(), check_archives=self.check_archives)
            folders = prepared_folders(self.root, self.task, self.protocol, self.scratch)
        return tuple(folders[config] for config in needed)

    def _output_folder(self) -> Path:
        out = self.root / PREPARED_FOLDER
        if os.access(out if out.exists() else self.root, os.W_OK):
            return out
        if self.scratch is None:
            raise UsageError(f"{out} cannot be written, and there is no scratch folder instead")
        return self.scratch / PREPARED_FOLDER

    def _items(self, folder: PreparedFolder, by_protocol: tuple[Roles, Roles]) -> Iterator[Item | Rejected]:
        prefix = _file_prefix(folder.path, self.root, self.scratch)
        title = "/".join(filter(None, (folder.builder, folder.config)))
        vtab, lite = by_protocol
        for split in vtab:
            used: list[int] = np.flatnonzero(vtab[split] | lite[split]).tolist()
            for record in folder.read(split, used):
                position = record.position
                name = f"{title}/{split}/{position}"
                label = _label_or_reason(self.task, record.data)
                if isinstance(label, str):
                    yield Rejected(name, label)
                    continue
                yield Item(
                    name=name,
                    class_id=label,
                    split=ROLE_SPLITS[vtab[split][position]],
                    file=prefix + record.shard,
                    offset=record.offset,
                    length=record.length,
                    frame=position,
                    split_lite=ROLE_SPLITS[lite[split][position]],
                )


def _label_or_reason(task: VtabTask, data: Buffer) -> int | str:
    """The class, or why there is none."""
    try:
        label = task.label(parse_example(data))
    except (IntegrityError, KeyError, IndexError, ValueError, TypeError, OverflowError) as error:
        return f"has no label ({type(error).__name__}: {error})"
    if 0 <= label < task.classes:
        return label
    return f"its label {label} is none of the {task.classes} classes"


def _class_records(task: VtabTask, folder: PreparedFolder) -> tuple[ClassRecord, ...]:
    names = task.bins or folder.class_names() or tuple(map(str, range(task.classes)))
    if len(names) != task.classes:
        raise IntegrityError(
            f"{task.name} has {task.classes} classes; {folder.path} names {len(names)}; "
            "is it the dataset it should be?"
        )
    return tuple(ClassRecord(name=name) for name in names)


def _file_prefix(path: Path, root: Path, scratch: Path | None) -> str:
    """The beginning of the `file` of an item."""
    for base, mark in ((root, ""), (scratch, SCRATCH)):
        if base is not None and path.is_relative_to(base):
            relative = path.relative_to(base).as_posix()
            relative = relative if mark else span_file(relative)
            return mark + (f"{relative}/" if relative not in (".", "") else "")
    return f"{path.as_posix()}/"
