"""Records and folders as TFDS writes them, without TFDS."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.sources.tfrecords.framing import RECORD_HEADER, masked_crc
from pipeline.sources.vtab.tfds_folder import SHARD_TEMPLATE

Feature = list[bytes] | list[int] | list[float]


def example(features: Mapping[str, Feature]) -> bytes:
    """A serialized tf.train.Example."""
    entries = (_field(1, _field(1, name.encode()) + _field(2, _values(v))) for name, v in features.items())
    return _field(1, b"".join(entries))


def tfrecord(records: Iterable[bytes]) -> bytes:
    """The bytes of a TFRecord file."""
    framed = []
    for record in records:
        length = struct.pack("<Q", len(record))
        header = RECORD_HEADER.pack(len(record), masked_crc(length))
        framed.append(header + record + struct.pack("<L", masked_crc(record)))
    return b"".join(framed)


def _values(values: Feature) -> bytes:
    if all(isinstance(value, bytes) for value in values):
        return _field(1, b"".join(_field(1, value) for value in values if isinstance(value, bytes)))
    numbers = [value for value in values if not isinstance(value, bytes)]
    if all(isinstance(value, int) for value in numbers):
        return _field(3, _field(1, b"".join(_varint(int(value)) for value in numbers)))
    return _field(2, _field(1, struct.pack(f"<{len(numbers)}f", *numbers)))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def write_prepared(
    path: Path,
    splits: Mapping[str, list[list[bytes]]],
    *,
    name: str = "cifar100",
    version: str = "3.0.2",
    file_format: str = "tfrecord",
) -> Path:
    """A prepared folder as TFDS lays it out: for each split its shards, lists of records."""
    folder = path / name / version
    folder.mkdir(parents=True)
    rows = []
    for split, shards in splits.items():
        for i, records in enumerate(shards):
            file = folder / f"{name}-{split}.{file_format}-{i:05d}-of-{len(shards):05d}"
            if file_format == "tfrecord":
                file.write_bytes(tfrecord(records))
            else:
                write_array_record(file, records)
        lengths = [str(len(records)) for records in shards]
        rows.append({"name": split, "shardLengths": lengths, "filepathTemplate": SHARD_TEMPLATE})
    info = {"name": name, "version": version, "fileFormat": file_format, "splits": rows}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder


def write_array_record(file: Path, records: Iterable[bytes]) -> None:
    """With the options that TFDS uses."""
    from array_record.python import array_record_module  # noqa: PLC0415  (an extra)

    writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
