"""TFRecord files and the tf.train.Example messages in them, read without TensorFlow.

A record is: length (uint64) | masked CRC-32C of the length | data | masked CRC-32C of the data, all
little-endian. An Example is a protobuf map from feature names to one list each of bytes, floats or
int64; the parser below reads this message and no other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import google_crc32c

from pipeline.errors import IntegrityError
from pipeline.sources.inflation import GZIP_MAGIC

RECORD_HEADER: Final = struct.Struct("<QL")
RECORD_FOOTER: Final = struct.Struct("<L")
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
VARINT_BYTES: Final = 10  # a 64-bit number in groups of seven
FIELD_LIMIT: Final = 2**29 - 1  # protobuf's highest field number
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3

Buffer: TypeAlias = "bytes | memoryview"
ByteRanges: TypeAlias = "list[tuple[int, int]]"
"""Start and end of each part of a message; protobuf allows a message to come in several parts."""
FeatureValues: TypeAlias = "list[bytes] | list[int] | list[float]"


def masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated and shifted, so that data which holds checksums is safe."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path, *, verify: bool = False) -> Iterator[tuple[int, int]]:
    """Yield the offset and length of the data of each record, in file order.

    Lengths are always checked. The data is skipped, unless `verify` asks to read and check it too.
    """
    with path.open("rb") as file:
        position, count = 0, 0
        size = os.fstat(file.fileno()).st_size
        while position < size:
            file.seek(position)
            where = f"{path}, record {count} at byte {position:,}"
            length = _checked_length(file.read(RECORD_HEADER.size), size - position, where)
            start = position + RECORD_HEADER.size
            if verify:
                check_record(file.read(length + RECORD_FOOTER.size), where)
            yield start, length
            position, count = start + length + RECORD_FOOTER.size, count + 1


def check_record(framed: bytes, where: str) -> memoryview:
    """Return the data of a record, checked by the four checksum bytes that follow it in `framed`."""
    data, footer = framed[: -RECORD_FOOTER.size], framed[-RECORD_FOOTER.size :]
    if len(footer) < RECORD_FOOTER.size or RECORD_FOOTER.unpack(footer)[0] != masked_crc(data):
        raise IntegrityError(f"{where}: the data does not match its checksum; copy the file again")
    return memoryview(data)


def _checked_length(header: bytes, left: int, where: str) -> int:
    """The length in a record's header, checked by its checksum and by what the file has left."""
    needed = RECORD_HEADER.size
    if len(header) == needed:
        length, crc = RECORD_HEADER.unpack(header)
        if crc != masked_crc(header[:8]):
            cause = "it is compressed; unpack it" if header[:2] == GZIP_MAGIC else "copy the file again"
            raise IntegrityError(f"{where}: this is not a TFRecord or is damaged; {cause}")
        needed += length + RECORD_FOOTER.size
        if needed <= left:
            return int(length)
    raise IntegrityError(
        f"{where}: the file is cut off: {needed:,} bytes are needed and {left:,} are left; "
        "copy the file again"
    )


def parse_example(data: Buffer) -> dict[str, FeatureValues]:
    """Parse a serialized Example; a feature without a list becomes an empty list."""
    return {
        name: _feature_values(data, *_feature_list(data, ranges))
        for name, ranges in _feature_messages(data).items()
    }


def feature_span(data: Buffer, name: str) -> tuple[int, int]:
    """Offset (within `data`) and length of a feature that is one bytes value, such as an image."""
    features = _feature_messages(data)
    if name not in features:
        raise IntegrityError(f"the Example has no feature {name!r}, it has {sorted(features)}")
    kind, ranges = _feature_list(data, features[name])
    spans = _bytes_spans(data, ranges) if kind == BYTES_LIST else []
    if len(spans) != 1:
        actual = f"{len(spans)} of them" if kind == BYTES_LIST else "another type"
        raise IntegrityError(f"feature {name!r} should be one value of bytes and is {actual}")
    start, end = spans[0]
    return start, end - start


class _WireField(NamedTuple):
    """One encoded field. `start` and `end` enclose its value (the contents, if it is delimited)."""

    number: int
    wire: int
    start: int
    end: int
    value: int = 0
    """Of a varint."""


def _wire_fields(data: Buffer, start: int, end: int) -> Iterator[_WireField]:
    position = start
    while position < end:
        tag, position = _read_varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        value, begin = 0, position
        if wire == VARINT:
            value, position = _read_varint(data, position, end)
        elif wire == DELIMITED:
            size, begin = _read_varint(data, position, end)
            position = begin + size
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        else:
            raise IntegrityError(f"malformed Example: wire type {wire} at byte {begin:,}")
        if not 0 < number <= FIELD_LIMIT or position > end:
            raise IntegrityError(f"malformed Example: no whole field at byte {begin:,}")
        yield _WireField(number, wire, begin, position, value)


def _read_varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
    """An unsigned number of up to 64 bits, and the position after it."""
    value = 0
    for shift in range(0, 7 * VARINT_BYTES, 7):
        if position >= end:
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004  (the top bit says that more follows)
            return value & 0xFFFFFFFFFFFFFFFF, position
    raise IntegrityError(f"malformed Example: the number at byte {position:,} has no end")


def _delimited_fields(data: Buffer, ranges: ByteRanges, number: int) -> ByteRanges:
    """The contents of each delimited field of that number; others are skipped, as protobuf does."""
    return [
        (field.start, field.end)
        for start, end in ranges
        for field in _wire_fields(data, start, end)
        if field.number == number and field.wire == DELIMITED
    ]


def _feature_messages(data: Buffer) -> dict[str, ByteRanges]:
    """Where each Feature message lies, by name; the last of two with the same name counts."""
    features: dict[str, ByteRanges] = {}
    for entry in _delimited_fields(data, _delimited_fields(data, [(0, len(data))], 1), 1):
        names, values = _delimited_fields(data, [entry], 1), _delimited_fields(data, [entry], 2)
        start, end = names[-1] if names else (0, 0)
        try:
            name = bytes(data[start:end]).decode()
        except UnicodeDecodeError as error:
            raise IntegrityError(f"malformed Example: a name at byte {start:,} is no text") from error
        features[name] = values
    return features


def _feature_list(data: Buffer, ranges: ByteRanges) -> tuple[int, ByteRanges]:
    """The kind of list that a Feature holds (0: none) and where it lies; the last kind counts."""
    kind = 0
    lists: ByteRanges = []
    for start, end in ranges:
        for field in _wire_fields(data, start, end):
            if field.wire == DELIMITED and field.number in (BYTES_LIST, FLOAT_LIST, INT64_LIST):
                if field.number != kind:
                    kind, lists = field.number, []
                lists.append((field.start, field.end))
    return kind, lists


def _feature_values(data: Buffer, kind: int, ranges: ByteRanges) -> FeatureValues:
    if kind == BYTES_LIST:
        return [bytes(data[start:end]) for start, end in _bytes_spans(data, ranges)]
    if kind == FLOAT_LIST:
        return [value for part in ranges for value in _floats(data, *part)]
    return [value for part in ranges for value in _integers(data, *part)]


def _bytes_spans(data: Buffer, ranges: ByteRanges) -> ByteRanges:
    return _delimited_fields(data, ranges, 1)


def _floats(data: Buffer, start: int, end: int) -> Iterator[float]:
    for field in _wire_fields(data, start, end):
        if field.number == 1 and field.wire in (DELIMITED, FIXED32):
            if (field.end - field.start) % 4:
                raise IntegrityError(f"malformed Example: floats at byte {field.start:,} end early")
            packed = bytes(data[field.start : field.end])
            yield from (value for (value,) in struct.iter_unpack("<f", packed))


def _integers(data: Buffer, start: int, end: int) -> Iterator[int]:
    for field in _wire_fields(data, start, end):
        if field.number == 1 and field.wire == VARINT:
            yield _signed(field.value)
        elif field.number == 1 and field.wire == DELIMITED:
            position = field.start
            while position < field.end:
                value, position = _read_varint(data, position, field.end)
                yield _signed(value)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
