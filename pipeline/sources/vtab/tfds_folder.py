"""Folders that TFDS has prepared, read with neither TFDS nor TensorFlow.

`<data folder>/<builder>/[<config>/]<version>/` holds `dataset_info.json` (splits and how many records
each shard has), the names of classes, and the shards: serialized tf.train.Examples in array_record or
TFRecord files. Records keep the order on disk, which is also the order that TFDS slices refer to.
"""

from __future__ import annotations

import json
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
from pipeline.sources.spans import Span, SpanReader
from pipeline.sources.tfrecords.framing import FOOTER, Buffer, checked_data, read_records

INFO: Final = "dataset_info.json"
ARRAY_RECORD, TFRECORD = "array_record", "tfrecord"
TEMPLATE: Final = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
BATCH: Final = 32  # records that array_record inflates at once; pictures may have megabytes


class Shard(NamedTuple):
    """One record file of a split."""

    name: str
    records: int


class Record(NamedTuple):
    """One serialized Example and where it lies; for an array_record the offset is its number."""

    position: int
    """Within the split; what slices count."""
    shard: str
    offset: int
    length: int
    data: Buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedFolder:
    """One version of a dataset."""

    path: Path
    builder: str
    config: str
    version: str
    file_format: str
    splits: Mapping[str, tuple[Shard, ...]]

    def size(self, split: str) -> int:
        """Records in a split; 0 if there is none of that name."""
        return sum(shard.records for shard in self.splits.get(split, ()))

    def class_names(self, feature: str = "label") -> tuple[str, ...]:
        """The names TFDS knows, by class number; () if it has numbers only."""
        file = self.path / f"{feature}.labels.txt"
        return tuple(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else ()

    def read(self, split: str, indices: Sequence[int]) -> Iterator[Record]:
        """The records of those (ascending) indices."""
        start = 0
        for shard in self.splits.get(split, ()):
            end = start + shard.records
            numbers = [
                index - start
                for index in indices[bisect_left(indices, start) : bisect_left(indices, end)]
            ]
            path = self.path / shard.name
            read = _read_array if self.file_format == ARRAY_RECORD else _read_tfrecord
            if numbers and not path.is_file():
                raise SourceMissing(f"{self.path / INFO} names {shard.name}, which is not there")
            if numbers:
                for number, offset, length, data in read(path, shard.records, numbers):
                    yield Record(start + number, shard.name, offset, length, data)
            start = end


def find_prepared(
    bases: Iterable[Path], builder: str, config: str, versions: Sequence[str]
) -> PreparedFolder | None:
    """The first of the versions (beginnings, best first) that some base folder holds."""
    inside = f"{config}/*" if config else "*"
    found = [
        folder
        for base in bases
        for path in (base, *sorted(base.glob(inside)), *sorted(base.glob(f"{builder}/{inside}")))
        if not path.name.startswith("incomplete") and (path / INFO).is_file()
        if (folder := open_prepared(path)).builder == builder and folder.config == config
    ]
    for version in versions:
        for folder in found:
            if folder.version.startswith(version):
                return folder
    return None


def open_prepared(path: Path) -> PreparedFolder:
    """The folder of one version."""
    try:
        info = json.loads((path / INFO).read_text(encoding="utf-8"))
        builder, version = str(info["name"]), str(info["version"])
        config = str(info.get("configName", ""))
        file_format = str(info.get("fileFormat", TFRECORD))
        splits = {str(s["name"]): _shards(s, builder, file_format) for s in info["splits"]}
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{path / INFO} is not what TFDS 4 writes ({type(error).__name__}: {error}); "
            "prepare the dataset again"
        ) from error
    if file_format not in (ARRAY_RECORD, TFRECORD):
        raise IntegrityError(
            f"{path} holds {file_format} files; prepare it as {ARRAY_RECORD} or {TFRECORD}"
        )
    return PreparedFolder(
        path=path,
        builder=builder,
        config=config,
        version=version,
        file_format=file_format,
        splits=splits,
    )


def _shards(split: Mapping[str, Any], builder: str, file_format: str) -> tuple[Shard, ...]:
    lengths = [int(length) for length in split["shardLengths"]]
    name = str(split.get("filepathTemplate", TEMPLATE))
    name = name.replace("{DATASET}", builder).replace("{SPLIT}", split["name"])
    name = name.replace("{FILEFORMAT}", file_format)
    return tuple(
        Shard(name.replace("{SHARD_X_OF_Y}", f"{i:05d}-of-{len(lengths):05d}"), length)
        for i, length in enumerate(lengths)
    )


Found = tuple[int, int, int, Buffer]  # number in the shard, offset, length, data


def _read_tfrecord(path: Path, records: int, numbers: Sequence[int]) -> Iterator[Found]:
    wanted, count = set(numbers), 0
    if not path.stat().st_size:
        _check_count(path, records, 0)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for number, (offset, length) in enumerate(read_records(path)):
            count += 1
            if number in wanted:
                yield number, offset, length, mapped[offset : offset + length]
    _check_count(path, records, count)


def _read_array(path: Path, records: int, numbers: Sequence[int]) -> Iterator[Found]:
    reader = _open_array(path)
    try:
        _check_count(path, records, reader.num_records())
        for start in range(0, len(numbers), BATCH):
            batch = numbers[start : start + BATCH]
            for number, data in zip(batch, reader.read(batch), strict=True):
                yield number, number, -1, data
    except RuntimeError as error:
        raise IntegrityError(f"{path} is damaged ({error}); prepare it again") from error
    finally:
        _close(reader)


def _check_count(path: Path, expected: int, found: int) -> None:
    if expected != found:
        raise IntegrityError(
            f"{path} should have {expected:,} records and has {found:,}; it is damaged or from "
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


def _close(reader: Any) -> None:
    with suppress(RuntimeError):  # of a damaged file, which reading has reported already
        reader.close()


@contextmanager
def record_reader(root: Path, scratch: Path | None = None) -> Iterator[Callable[[Item], Buffer]]:
    """Gives the serialized Example of an item, checked; keeps a bounded number of files open."""
    arrays: OrderedDict[str, Any] = OrderedDict()
    with SpanReader(root, scratch) as spans:

        def array(file: str) -> Any:
            if file not in arrays:
                if len(arrays) >= OPEN_FILES:
                    _close(arrays.popitem(last=False)[1])
                arrays[file] = _open_array(spans.path(file))
            arrays.move_to_end(file)
            return arrays[file]

        def read(item: Item) -> Buffer:
            if item.length >= 0:
                span = Span(item.file, item.offset, item.length + FOOTER.size)
                return checked_data(spans.read_span(span), f"{item.file}, byte {item.offset:,}")
            try:
                data: bytes = array(item.file).read([item.offset])[0]
            except (RuntimeError, IndexError) as error:
                raise IntegrityError(f"{item.file}, record {item.offset}: {error}") from error
            return data

        try:
            yield read
        finally:
            for reader in arrays.values():
                _close(reader)
