"""Folders that TFDS has prepared, read without TFDS and TensorFlow.

`<data folder>/<builder>/[<config>/]<version>/` holds `dataset_info.json` (the splits, and the number of
records in each shard), the names of classes, and the shards: serialized tf.train.Examples in array_record
or TFRecord files. Records keep the order on disk, to which the slices of TFDS refer.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.constants import OPEN_FILES
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.records import Item
from pipeline.settings import read_json, typed
from pipeline.sources.spans import FileSpan, SpanReader, read_list
from pipeline.sources.tfrecords.framing import RECORD_FOOTER, Buffer, check_record, read_records

INFO_FILE: Final = "dataset_info.json"
ARRAY_RECORD, TFRECORD = "array_record", "tfrecord"
SHARD_TEMPLATE: Final = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
RECORD_COUNT_LIMIT: Final = 50_000_000  # of a split; more than any image dataset of TFDS
ARRAY_RECORD_BATCH: Final = 32  # records that array_record inflates at once; images may have megabytes


class RecordFile(NamedTuple):
    """One record file of a split."""

    name: str
    records: int


class ExampleRecord(NamedTuple):
    """One serialized Example and where it lies; in an array_record file the offset is its number."""

    position: int
    """Within the split, as slices count."""
    shard: str
    offset: int
    length: int
    data: Buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedFolder:
    """One prepared version of a dataset."""

    path: Path
    builder: str
    config: str
    version: str
    file_format: str
    splits: Mapping[str, tuple[RecordFile, ...]]

    def size(self, split: str) -> int:
        """The number of records in a split; 0 if there is no split of that name."""
        return sum(shard.records for shard in self.splits.get(split, ()))

    def class_names(self, feature: str = "label") -> tuple[str, ...]:
        """The names of the classes, by class number; () if TFDS has only numbers."""
        file = self.path / f"{feature}.labels.txt"
        return tuple(read_list(file).decode("utf-8", "replace").splitlines()) if file.is_file() else ()

    def read(self, split: str, indices: Sequence[int]) -> Iterator[ExampleRecord]:
        """Yield the records of the given, ascending indices."""
        start = 0
        for shard in self.splits.get(split, ()):
            end = start + shard.records
            numbers = [
                index - start for index in indices[bisect_left(indices, start) : bisect_left(indices, end)]
            ]
            path = self.path / shard.name
            read = _read_array if self.file_format == ARRAY_RECORD else _read_tfrecord
            if numbers and not path.is_file():
                raise SourceMissing(f"{self.path / INFO_FILE} names {shard.name}, which is not there")
            if numbers:
                for number, offset, length, data in read(path, shard.records, numbers):
                    yield ExampleRecord(start + number, shard.name, offset, length, data)
            start = end


def find_prepared(
    bases: Iterable[Path], builder: str, config: str, versions: Sequence[str]
) -> PreparedFolder | None:
    """Find the first of the versions (given as prefixes, best first) in any of the base folders."""
    inside = f"{config}/*" if config else "*"
    folders = [
        folder
        for base in bases
        for path in (base, *sorted(base.glob(inside)), *sorted(base.glob(f"{builder}/{inside}")))
        if not path.name.startswith("incomplete") and (path / INFO_FILE).is_file()
        if (folder := open_prepared(path)).builder == builder and folder.config == config
    ]
    for version in versions:
        for folder in folders:
            if folder.version.startswith(version):
                return folder
    return None


def open_prepared(path: Path) -> PreparedFolder:
    """Read the description of one prepared version."""
    try:
        info = typed(read_json(path / INFO_FILE), dict[str, Any], INFO_FILE)
        builder, version = str(info["name"]), str(info["version"])
        config = str(info.get("configName", ""))
        file_format = str(info.get("fileFormat", TFRECORD))
        splits = {str(s["name"]): _record_files(s, builder, file_format) for s in info["splits"]}
    except (IntegrityError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise IntegrityError(
            f"{path / INFO_FILE} is not what TFDS 4 writes ({type(error).__name__}: {error}); "
            "prepare the dataset again"
        ) from error
    if file_format not in (ARRAY_RECORD, TFRECORD):
        raise IntegrityError(f"{path} holds {file_format} files; prepare it as {ARRAY_RECORD} or {TFRECORD}")
    return PreparedFolder(
        path=path, builder=builder, config=config, version=version, file_format=file_format, splits=splits
    )


def _record_files(split: Mapping[str, Any], builder: str, file_format: str) -> tuple[RecordFile, ...]:
    lengths = [int(length) for length in split["shardLengths"]]
    if min(lengths, default=0) < 0 or sum(lengths) > RECORD_COUNT_LIMIT:
        raise ValueError(f"{sum(lengths):,} records in a split (limit {RECORD_COUNT_LIMIT:,})")
    name = str(split.get("filepathTemplate", SHARD_TEMPLATE))
    name = name.replace("{DATASET}", builder).replace("{SPLIT}", split["name"])
    name = name.replace("{FILEFORMAT}", file_format)
    return tuple(
        RecordFile(name.replace("{SHARD_X_OF_Y}", f"{i:05d}-of-{len(lengths):05d}"), length)
        for i, length in enumerate(lengths)
    )


NumberedRecord = tuple[int, int, int, Buffer]  # number in its shard, offset, length, data


def _read_tfrecord(path: Path, records: int, numbers: Sequence[int]) -> Iterator[NumberedRecord]:
    chosen, count = set(numbers), 0
    if not path.stat().st_size:
        _check_count(path, records, 0)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for number, (offset, length) in enumerate(read_records(path)):
            count += 1
            if number in chosen:
                yield number, offset, length, mapped[offset : offset + length]
    _check_count(path, records, count)


def _read_array(path: Path, records: int, numbers: Sequence[int]) -> Iterator[NumberedRecord]:
    reader = _open_array(path)
    try:
        _check_count(path, records, reader.num_records())
        for start in range(0, len(numbers), ARRAY_RECORD_BATCH):
            batch = numbers[start : start + ARRAY_RECORD_BATCH]
            for number, data in zip(batch, reader.read(batch), strict=True):
                yield number, number, -1, data
    except RuntimeError as error:
        raise IntegrityError(f"{path} is damaged ({error}); prepare it again") from error
    finally:
        _close_array(reader)


def _check_count(path: Path, expected: int, count: int) -> None:
    if expected != count:
        raise IntegrityError(
            f"{path} should have {expected:,} records and has {count:,}; it is damaged or from "
            "another run: prepare the dataset again"
        )


def _open_array(path: Path) -> Any:
    try:
        from array_record.python import array_record_module  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise UsageError(
            f"{path} is an array_record file; reading it needs: pip install -e '.[tfds]'"
        ) from error
    return array_record_module.ArrayRecordReader(str(path), "readahead_buffer_size:0")


def _close_array(reader: Any) -> None:
    with suppress(RuntimeError):  # a damaged file, which reading has already reported
        reader.close()


@contextmanager
def record_reader(root: Path, scratch: Path | None = None) -> Iterator[Callable[[Item], Buffer]]:
    """A function that reads and checks the serialized Example of an item; few files stay open."""
    arrays: OrderedDict[str, Any] = OrderedDict()
    with SpanReader(root, scratch) as spans:

        def array(file: str) -> Any:
            if file not in arrays:
                if len(arrays) >= OPEN_FILES:
                    _close_array(arrays.popitem(last=False)[1])
                arrays[file] = _open_array(spans.path(file))
            arrays.move_to_end(file)
            return arrays[file]

        def read(item: Item) -> Buffer:
            if item.length >= 0:
                span = FileSpan(item.file, item.offset, item.length + RECORD_FOOTER.size)
                return check_record(spans.read_span(span), f"{item.file}, byte {item.offset:,}")
            try:
                data: bytes = array(item.file).read([item.offset])[0]
            except (RuntimeError, IndexError) as error:
                raise IntegrityError(f"{item.file}, record {item.offset}: {error}") from error
            return data

        try:
            yield read
        finally:
            for reader in arrays.values():
                _close_array(reader)
