"""Check one tar against the index in one pass: every header, member, padding byte and checksum.

The index gives the offset of each image, and so where each sample begins. Samples are checked one by
one, so damage in one does not hide the next.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, TypeAlias

from pipeline.build.writer import TAR_BLOCK, TAR_END, TAR_RECORD, dali_index, member_header
from pipeline.constants import READ_BLOCK
from pipeline.foreign_files import open_regular
from pipeline.layout import key_text

BYTES_BEFORE_IMAGE: Final = 3 * TAR_BLOCK  # of a sample: header, class, header
SAMPLE_MEMBERS: Final = 3  # class, image, json
JSON_MEMBER_BYTES: Final = 2**20  # of a json member at most; ours have some hundred
SIZE_FIELD: Final = slice(124, 135)  # of a USTAR header, in octal digits

JsonShape: TypeAlias = tuple[tuple[str, str], ...]
"""The keys of a json member, each with its value's type."""


class ExpectedSample(NamedTuple):
    """What the index says of one sample of the tar."""

    key: int
    offset: int
    """Of the image's first byte."""
    length: int
    crc32: int
    metadata: Mapping[str, Any]
    """Values that the json member must repeat."""

    @property
    def start(self) -> int:
        """Where the sample's first header begins."""
        return self.offset - BYTES_BEFORE_IMAGE

    @property
    def json_header(self) -> int:
        """Where the header of the json member begins."""
        return self.offset + _padded_size(self.length)


@dataclass(frozen=True, kw_only=True, slots=True)
class TarFlaw:
    """One difference between a tar and the index, and where it is."""

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
    flaws: tuple[TarFlaw, ...]
    bytes: int
    shape: JsonShape
    """Of all json members."""


class _HashingReader:
    """Reads a file from start to end and hashes all of it."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self.digest = hashlib.sha256()
        self.position = 0

    def read(self, count: int) -> bytes:
        data = self._handle.read(count)
        self.digest.update(data)
        self.position += len(data)
        return data

    def rest_is_zero(self) -> bool:
        """Read to the end; whether all of it was zeros."""
        zeros = True
        while data := self.read(READ_BLOCK):
            zeros = zeros and not data.strip(b"\0")
        return zeros


def check_tar(path: Path, samples: Sequence[ExpectedSample], extension: str) -> TarState:
    """Compare a tar with its samples in the index, in order. Raises OSError if it cannot be read."""
    flaws: list[TarFlaw] = []
    entries: list[str] = []
    shapes: list[JsonShape] = []
    with open_regular(path) as handle:
        reader = _HashingReader(handle)
        if (overlap := _find_overlap(samples)) is not None:
            flaws.append(overlap)
            samples = ()
        for expected, following in pairwise((*samples, None)):
            assert expected is not None
            key, data = key_text(expected.key), _read_sample(reader, expected, following)
            if data is None:
                lost = len(samples) - len(entries)
                what = f"the file ends here, within this sample; {lost:,} samples are lost"
                flaws.append(TarFlaw(what=what, offset=reader.position, key=key))
                break
            entries.append(_index_entry(expected, extension, _json_size(data, expected)))
            for place, what in (
                *_compare_members(data, expected, extension),
                *_compare_json(data, expected, shapes),
            ):
                flaws.append(TarFlaw(what=what, offset=expected.start + place, key=key))
        end = reader.position
        zeros = reader.rest_is_zero()
        tail = len(TAR_END) + -(end + len(TAR_END)) % TAR_RECORD
        if not flaws and samples and (not zeros or reader.position - end != tail):
            what = f"the end is {reader.position - end:,} bytes, it must be {tail:,} zero bytes"
            flaws.append(TarFlaw(what=what, offset=end))
    return TarState(
        bytes=reader.position,
        sha256=reader.digest.hexdigest(),
        members=SAMPLE_MEMBERS * len(entries),
        flaws=tuple(flaws),
        index=dali_index(entries),
        shape=shapes[0] if shapes else (),
    )


def _padded_size(count: int) -> int:
    return -(-count // TAR_BLOCK) * TAR_BLOCK


def _find_overlap(samples: Sequence[ExpectedSample]) -> TarFlaw | None:
    """An offset that cannot be: samples follow one another, the first from the file's first byte."""
    position = 0
    for sample in samples:
        if not position <= sample.start <= position + JSON_MEMBER_BYTES:
            break
        position = sample.json_header + TAR_BLOCK
    else:
        if not samples or samples[0].start == 0:
            return None
        sample = samples[0]
    what = f"the index places a picture of {sample.length:,} bytes here, where none can lie"
    return TarFlaw(what=what, offset=sample.offset, key=key_text(sample.key))


def _read_sample(
    reader: _HashingReader, expected: ExpectedSample, following: ExpectedSample | None
) -> bytes | None:
    """The bytes of a sample, up to the next sample's first header; None if the file ends before."""
    end = expected.json_header + TAR_BLOCK if following is None else following.start
    count = end - reader.position
    data = reader.read(count)
    if following is None and len(data) == count:
        json_bytes = _padded_size(min(max(0, _json_size(data, expected)), JSON_MEMBER_BYTES))
        count, data = count + json_bytes, data + reader.read(json_bytes)
    return data if len(data) == count else None


def _json_size(data: bytes, expected: ExpectedSample) -> int:
    """The size in the json member's header; -1 if it is no number."""
    digits = data[expected.json_header - expected.start :][:TAR_BLOCK][SIZE_FIELD]
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else -1


def _index_entry(expected: ExpectedSample, extension: str, json_size: int) -> str:
    """The sample's line of the DALI index."""
    key, label = key_text(expected.key), len(str(expected.metadata["class_id"]))
    return (
        f"cls {expected.start + TAR_BLOCK} {label} {key}.cls "
        f"{extension} {expected.offset} {expected.length} {key}.{extension} "
        f"json {expected.json_header + TAR_BLOCK} {json_size} {key}.json"
    )


def _compare_members(data: bytes, expected: ExpectedSample, extension: str) -> Iterator[tuple[int, str]]:
    """Compare headers, class, image and padding; yield each difference after its place in `data`."""
    key, label = key_text(expected.key), b"%d" % expected.metadata["class_id"]
    image_end = BYTES_BEFORE_IMAGE + expected.length
    json_header = expected.json_header - expected.start
    for place, name, size in (
        (0, f"{key}.cls", len(label)),
        (2 * TAR_BLOCK, f"{key}.{extension}", expected.length),
        (json_header, f"{key}.json", max(_json_size(data, expected), 0)),
    ):
        if data[place : place + TAR_BLOCK] != member_header(name, size):
            yield place, f"the header of {name} ({size:,} bytes) is damaged"
    if data[TAR_BLOCK : 2 * TAR_BLOCK] != label.ljust(TAR_BLOCK, b"\0"):
        what = f"{key}.cls is {data[TAR_BLOCK:][:8]!r} and the index says {label.decode()}"
        yield TAR_BLOCK, what
    if (crc32 := zlib.crc32(memoryview(data)[BYTES_BEFORE_IMAGE:image_end])) != expected.crc32:
        what = f"{key}.{extension} has crc32 {crc32:08x} and the index says {expected.crc32:08x}"
        yield BYTES_BEFORE_IMAGE, what
    if data[image_end:json_header].strip(b"\0"):
        yield image_end, f"the padding after {key}.{extension} is not zero"


def _compare_json(
    data: bytes, expected: ExpectedSample, shapes: list[JsonShape]
) -> Iterator[tuple[int, str]]:
    """Compare the json member with the index, and its shape with that of the tar's first one."""
    name, size = f"{key_text(expected.key)}.json", _json_size(data, expected)
    place = expected.json_header - expected.start + TAR_BLOCK
    text = data[place:]
    if size < 0 or _padded_size(size) != len(text) or text[size:].strip(b"\0"):
        yield place, f"{name} does not fill its place of {len(text):,} bytes"
        return
    try:
        metadata = json.loads(text[:size])
    except (ValueError, RecursionError) as error:
        yield place, f"{name} is not JSON ({error})"
        return
    if not isinstance(metadata, dict) or None in metadata.values():
        yield place, f"{name} is not an object without nulls"
        return
    shape = tuple((key, type(value).__name__) for key, value in metadata.items())
    if shapes and shape != shapes[0]:
        yield place, f"{name} has other keys or types than the first sample's"
    shapes += [] if shapes else [shape]
    for key, value in expected.metadata.items():
        if metadata.get(key) != value:
            yield place, f"{name} says {key} {metadata.get(key)!r} and the index {value!r}"
