"""One tar against the index, in one pass: every header, member, padding byte and checksum.

The index says where each picture lies, and so where each sample begins; samples are judged one by
one, and damage in one does not hide the next.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

from pipeline.build.writer import BLOCK, END, RECORD, dali_index
from pipeline.constants import READ_BLOCK
from pipeline.layout import key_text

LEAD: Final = 3 * BLOCK  # bytes of a sample before its picture: header, class, header
MEMBERS: Final = 3  # of a sample
NAME_FIELD: Final = slice(0, 100)  # of a USTAR header
SIZE_FIELD: Final = slice(124, 135)  # in octal digits
SUM_FIELD: Final = slice(148, 156)
KIND_FIELD: Final = slice(156, 157)
MAGIC_FIELD: Final = slice(257, 265)


class Row(NamedTuple):
    """What the index says of one sample of the tar."""

    key: int
    offset: int
    length: int
    crc32: int
    about: Mapping[str, Any]
    """Values that its json member must repeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Flaw:
    """One difference, and where."""

    what: str
    offset: int
    key: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TarState:
    """What a tar holds."""

    index: bytes
    """The DALI index (.idx) that belongs to it."""
    sha256: str
    members: int
    """Compared with the index."""
    flaws: tuple[Flaw, ...]
    bytes: int
    shape: tuple[tuple[str, str], ...]
    """Keys and types of the json members."""


class _Reader:
    """Reads forward and hashes all it reads."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.digest = hashlib.sha256()
        self.position = 0

    def read(self, count: int) -> bytes:
        data = self._handle.read(count)
        self.digest.update(data)
        self.position += len(data)
        return data

    def rest(self) -> bool:
        """Read to the end; whether all of it was zeros."""
        zeros = True
        while data := self.read(READ_BLOCK):
            zeros = zeros and not data.strip(b"\0")
        return zeros


def check_tar(path: Path, rows: Sequence[Row], extension: str) -> TarState:
    """Compare a tar with its rows of the index, in their order. Raises OSError if it cannot be read."""
    flaws: list[Flaw] = []
    entries: list[str] = []
    shapes: list[tuple[tuple[str, str], ...]] = []
    with path.open("rb", buffering=READ_BLOCK) as handle:
        reader = _Reader(handle)
        if (fault := _overlap(rows)) is not None:
            flaws.append(fault)
            rows = ()
        for row, following in pairwise((*rows, None)):
            assert row is not None
            start, sample = reader.position, _read_sample(reader, row, following)
            if sample is None:
                flaws.append(_cut_off(reader.position, row, len(rows) - len(entries)))
                break
            entries.append(_entry(row, extension, start, _json_bytes(sample, row)))
            flaws += _sample_flaws(sample, row, extension, start)
            flaws += _text_flaws(sample, row, start, shapes)
        end = reader.position
        zeros = reader.rest()
        tail = len(END) + -(end + len(END)) % RECORD
        if not flaws and rows and (not zeros or reader.position - end != tail):
            what = f"the end is {reader.position - end:,} bytes, it must be {tail:,} zero bytes"
            flaws.append(Flaw(what=what, offset=end))
    return TarState(
        bytes=reader.position,
        sha256=reader.digest.hexdigest(),
        members=MEMBERS * len(entries),
        flaws=tuple(flaws),
        index=dali_index(entries),
        shape=shapes[0] if shapes else (),
    )


def _padded(count: int) -> int:
    return -(-count // BLOCK) * BLOCK


def _overlap(rows: Sequence[Row]) -> Flaw | None:
    """Rows that cannot be: samples lie one after the other and start with the first byte."""
    position = 0
    for row in rows:
        if row.length < 0 or row.offset - LEAD < position:
            break
        position = row.offset + _padded(row.length) + BLOCK
    else:
        if not rows or rows[0].offset == LEAD:
            return None
        row = rows[0]
    what = f"the index places a picture of {row.length:,} bytes here, where none can lie"
    return Flaw(what=what, offset=row.offset, key=key_text(row.key))


def _read_sample(reader: _Reader, row: Row, following: Row | None) -> bytes | None:
    """The bytes from this sample's first header to the next sample's; None if the file ends before."""
    if following is not None:
        wanted = following.offset - LEAD - reader.position
        sample = reader.read(wanted)
        return sample if len(sample) == wanted else None
    wanted = LEAD + _padded(row.length) + BLOCK
    sample = reader.read(wanted)
    if len(sample) < wanted:
        return None
    text_bytes = max(0, _json_bytes(sample, row))
    text = reader.read(_padded(text_bytes))
    return sample + text if len(text) == _padded(text_bytes) else None


def _is_header(header: bytes, name: str, size: int) -> bool:
    """Whether this is the intact USTAR header of such a member."""
    total = sum(header) - sum(header[SUM_FIELD]) + len(b" " * 8) * ord(" ")
    return (
        header[NAME_FIELD].rstrip(b"\0") == name.encode()
        and header[SIZE_FIELD] == b"%011o" % size
        and header[SUM_FIELD] == b"%06o\0 " % total
        and header[KIND_FIELD] == b"0"
        and header[MAGIC_FIELD] == b"ustar\00000"
    )


def _json_bytes(sample: bytes, row: Row) -> int:
    """What the json member's header says of its size; -1 if that is no number."""
    header = sample[LEAD + _padded(row.length) :][:BLOCK]
    digits = header[SIZE_FIELD]
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else -1


def _cut_off(position: int, row: Row, lost: int) -> Flaw:
    what = f"the file ends here, within this sample; {lost:,} samples are lost"
    return Flaw(what=what, offset=position, key=key_text(row.key))


def _entry(row: Row, extension: str, start: int, text_bytes: int) -> str:
    """The sample's line of the DALI index."""
    key, label = key_text(row.key), len(str(row.about["class_id"]))
    text = row.offset + _padded(row.length) + BLOCK
    return (
        f"cls {start + BLOCK} {label} {key}.cls {extension} {row.offset} {row.length} "
        f"{key}.{extension} json {text} {text_bytes} {key}.json"
    )


def _sample_flaws(sample: bytes, row: Row, extension: str, start: int) -> Iterator[Flaw]:
    """Headers, class, picture and padding, each with its place."""
    key, label = key_text(row.key), b"%d" % row.about["class_id"]
    end = LEAD + row.length
    text_header = LEAD + _padded(row.length)
    size = _json_bytes(sample, row)
    headers = ((0, "cls", len(label)), (2 * BLOCK, extension, row.length))
    for place, name, length in (*headers, (text_header, "json", max(size, 0))):
        if not _is_header(sample[place : place + BLOCK], f"{key}.{name}", length):
            what = f"the header of {key}.{name} ({length:,} bytes) is damaged"
            yield Flaw(what=what, offset=start + place, key=key)
    if sample[BLOCK : 2 * BLOCK] != label.ljust(BLOCK, b"\0"):
        what = f"{key}.cls is {sample[BLOCK:][:8]!r} and the index says {label.decode()}"
        yield Flaw(what=what, offset=start + BLOCK, key=key)
    if (crc32 := zlib.crc32(memoryview(sample)[LEAD:end])) != row.crc32:
        what = f"{key}.{extension} has crc32 {crc32:08x} and the index says {row.crc32:08x}"
        yield Flaw(what=what, offset=start + LEAD, key=key)
    if sample[end:text_header].strip(b"\0"):
        what = f"the padding after {key}.{extension} is not zero"
        yield Flaw(what=what, offset=start + end, key=key)


def _text_flaws(
    sample: bytes, row: Row, start: int, shapes: list[tuple[tuple[str, str], ...]]
) -> Iterator[Flaw]:
    """The json member: readable, no nulls, shaped like the first one, in agreement with the index."""
    size, key = _json_bytes(sample, row), key_text(row.key)
    place = LEAD + _padded(row.length) + BLOCK
    if size < 0 or _padded(size) != len(sample) - place or sample[place + size :].strip(b"\0"):
        what = f"{key}.json does not fill its place of {len(sample) - place:,} bytes"
        yield Flaw(what=what, offset=start + place, key=key)
        return
    try:
        about = json.loads(sample[place : place + size])
    except ValueError as error:
        yield Flaw(what=f"{key}.json is not JSON ({error})", offset=start + place, key=key)
        return
    if not isinstance(about, dict) or None in about.values():
        yield Flaw(what=f"{key}.json is not an object without nulls", offset=start + place, key=key)
        return
    shape = tuple((name, type(value).__name__) for name, value in about.items())
    if shapes and shape != shapes[0]:
        what = f"{key}.json has other keys or types than the first sample's"
        yield Flaw(what=what, offset=start + place, key=key)
    shapes += [] if shapes else [shape]
    for name, value in row.about.items():
        if about.get(name) != value:
            what = f"{key}.json says {name} {about.get(name)!r} and the index {value!r}"
            yield Flaw(what=what, offset=start + place, key=key)
