"""TFRecord files and the tf.train.Example messages in them, read without TensorFlow.

A record is: length (uint64) | masked CRC-32C of the length | data | masked CRC-32C of the data, all
little-endian. An Example is the protobuf map of feature names to one list each of bytes, floats or
int64; its parser below knows this message and no other.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from pipeline.errors import IntegrityError
from pipeline.sources.tfrecords.crc32c import crc32c

HEADER: Final = struct.Struct("<QL")
FOOTER: Final = struct.Struct("<L")
GZIP: Final = b"\x1f\x8b"
VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
VARINT_BYTES: Final = 10  # a 64-bit number in groups of seven
FIELD_LIMIT: Final = 2**29 - 1  # protobuf's highest field number
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3

Buffer: TypeAlias = "bytes | memoryview"
Chunks: TypeAlias = "list[tuple[int, int]]"
"""Start and end of each part of a message; protobuf lets a message come in parts."""
Values: TypeAlias = "list[bytes] | list[int] | list[float]"


def masked_crc(data: bytes) -> int:
    """CRC-32C as TFRecord stores it: rotated and shifted, so that a stored one can be summed again."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path, *, verify: bool = False) -> Iterator[tuple[int, int]]:
    """Offset and length of the data of each record, in file order.

    Lengths are always checked; the data is passed over, unless `verify` has it read and checked too.
    """
    with path.open("rb") as file:
        position, count = 0, 0
        size = os.fstat(file.fileno()).st_size
        while position < size:
            file.seek(position)
            where = f"{path}, record {count} at byte {position:,}"
            length = _length(file.read(HEADER.size), size - position, where)
            start = position + HEADER.size
            if verify:
                checked_data(file.read(length + FOOTER.size), where)
            yield start, length
            position, count = start + length + FOOTER.size, count + 1


def checked_data(framed: bytes, where: str) -> memoryview:
    """The data of a record, given the data and the four bytes that follow it; checked by them."""
    data, footer = framed[: -FOOTER.size], framed[-FOOTER.size :]
    if len(footer) < FOOTER.size or FOOTER.unpack(footer)[0] != masked_crc(data):
        raise IntegrityError(f"{where}: the data does not match its checksum; copy the file again")
    return memoryview(data)


def _length(header: bytes, left: int, where: str) -> int:
    """The length that a record's header gives, checked, and checked against what the file has left."""
    needed = HEADER.size
    if len(header) == needed:
        length, crc = HEADER.unpack(header)
        if crc != masked_crc(header[:8]):
            cause = "it is compressed; unpack it" if header[:2] == GZIP else "copy the file again"
            raise IntegrityError(f"{where}: this is not a TFRecord or is damaged; {cause}")
        needed += length + FOOTER.size
        if needed <= left:
            return int(length)
    raise IntegrityError(
        f"{where}: the file is cut off: {needed:,} bytes are needed and {left:,} are left; "
        "copy the file again"
    )


def parse_example(data: Buffer) -> dict[str, Values]:
    """The features of a serialized Example; a feature without a list is an empty list."""
    return {name: _values(data, *_list(data, chunks)) for name, chunks in _features(data).items()}


def feature_span(data: Buffer, name: str) -> tuple[int, int]:
    """Offset (within `data`) and length of a feature that is one bytes value, such as a picture."""
    features = _features(data)
    if name not in features:
        raise IntegrityError(f"the Example has no feature {name!r}, it has {sorted(features)}")
    kind, chunks = _list(data, features[name])
    spans = _bytes_spans(data, chunks) if kind == BYTES_LIST else []
    if len(spans) != 1:
        found = f"{len(spans)} of them" if kind == BYTES_LIST else "another type"
        raise IntegrityError(f"feature {name!r} should be one value of bytes and is {found}")
    start, end = spans[0]
    return start, end - start


class _Field(NamedTuple):
    """One field on the wire. `start` and `end` enclose its value (a delimited one's contents)."""

    number: int
    wire: int
    start: int
    end: int
    value: int = 0
    """Of a varint."""


def _fields(data: Buffer, start: int, end: int) -> Iterator[_Field]:
    position = start
    while position < end:
        tag, position = _varint(data, position, end)
        number, wire = tag >> 3, tag & 7
        value, begin = 0, position
        if wire == VARINT:
            value, position = _varint(data, position, end)
        elif wire == DELIMITED:
            size, begin = _varint(data, position, end)
            position = begin + size
        elif wire in (FIXED64, FIXED32):
            position += 8 if wire == FIXED64 else 4
        else:
            raise IntegrityError(f"malformed Example: wire type {wire} at byte {begin:,}")
        if not 0 < number <= FIELD_LIMIT or position > end:
            raise IntegrityError(f"malformed Example: no whole field at byte {begin:,}")
        yield _Field(number, wire, begin, position, value)


def _varint(data: Buffer, position: int, end: int) -> tuple[int, int]:
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


def _delimited(data: Buffer, chunks: Chunks, number: int) -> Chunks:
    """The contents of each delimited field of that number; others are passed over, as protobuf does."""
    return [
        (field.start, field.end)
        for start, end in chunks
        for field in _fields(data, start, end)
        if field.number == number and field.wire == DELIMITED
    ]


def _features(data: Buffer) -> dict[str, Chunks]:
    """Where each Feature message lies, by name; of two with one name the last counts."""
    features: dict[str, Chunks] = {}
    for entry in _delimited(data, _delimited(data, [(0, len(data))], 1), 1):
        names, values = _delimited(data, [entry], 1), _delimited(data, [entry], 2)
        start, end = names[-1] if names else (0, 0)
        try:
            name = bytes(data[start:end]).decode()
        except UnicodeDecodeError as error:
            raise IntegrityError(
                f"malformed Example: a name at byte {start:,} is no text"
            ) from error
        features[name] = values
    return features


def _list(data: Buffer, chunks: Chunks) -> tuple[int, Chunks]:
    """The kind of list that a Feature holds (0: none) and where; the last kind counts."""
    kind = 0
    lists: Chunks = []
    for start, end in chunks:
        for field in _fields(data, start, end):
            if field.wire == DELIMITED and field.number in (BYTES_LIST, FLOAT_LIST, INT64_LIST):
                if field.number != kind:
                    kind, lists = field.number, []
                lists.append((field.start, field.end))
    return kind, lists


def _values(data: Buffer, kind: int, chunks: Chunks) -> Values:
    if kind == BYTES_LIST:
        return [bytes(data[start:end]) for start, end in _bytes_spans(data, chunks)]
    if kind == FLOAT_LIST:
        return [value for chunk in chunks for value in _floats(data, *chunk)]
    return [value for chunk in chunks for value in _integers(data, *chunk)]


def _bytes_spans(data: Buffer, chunks: Chunks) -> Chunks:
    return _delimited(data, chunks, 1)


def _floats(data: Buffer, start: int, end: int) -> Iterator[float]:
    for field in _fields(data, start, end):
        if field.number == 1 and field.wire in (DELIMITED, FIXED32):
            if (field.end - field.start) % 4:
                raise IntegrityError(f"malformed Example: floats at byte {field.start:,} end early")
            packed = bytes(data[field.start : field.end])
            yield from (value for (value,) in struct.iter_unpack("<f", packed))


def _integers(data: Buffer, start: int, end: int) -> Iterator[int]:
    for field in _fields(data, start, end):
        if field.number == 1 and field.wire == VARINT:
            yield _signed(field.value)
        elif field.number == 1 and field.wire == DELIMITED:
            position = field.start
            while position < field.end:
                value, position = _varint(data, position, field.end)
                yield _signed(value)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
