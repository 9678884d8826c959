"""Encoded pictures become one tar, complete or not at all, and the same bytes every time.

Plain USTAR that webdataset, wids, DALI and `tar` read unchanged: short dot-free keys, the members
of a sample side by side, the same members in every sample, a fixed header, nothing else inside.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple

from pipeline.constants import MEMBER_NAME_BYTES, READ_BLOCK
from pipeline.layout import named, publish, temporary, write_whole
from pipeline.records import ShardFile

BLOCK: Final = 512
RECORD: Final = 20 * BLOCK  # tar's own unit; archives are padded to it
END: Final = bytes(2 * BLOCK)
HEADER: Final = (
    b"%s"  # name, 100 bytes
    b"0000444\0" b"0000000\0" b"0000000\0"  # mode, owner and group: the same for everybody
    b"%011o\0" b"00000000000\0"  # size; the epoch, so that the clock leaves no trace
    b"%s"  # checksum
    b"0" + bytes(100) + b"ustar\x0000" + bytes(32 + 32 + 8 + 8 + 155 + 12)  # no names, no devices
)  # fmt: skip
CHECKSUM: Final = 148  # bytes before it
BLANK: Final = b" " * 8  # what the checksum counts in its own place
PADDING: Final = bytes(BLOCK)


class Place(NamedTuple):
    """Where the picture of a sample lies in its tar."""

    offset: int
    length: int
    crc32: int


def member_header(name: str, size: int) -> bytes:
    """The 512 bytes before a member's data."""
    encoded = name.encode("ascii")
    if len(encoded) > MEMBER_NAME_BYTES:
        raise ValueError(f"{name!r} is longer than {MEMBER_NAME_BYTES} bytes")
    blank = HEADER % (encoded.ljust(MEMBER_NAME_BYTES, b"\0"), size, BLANK)
    return b"%b%06o\0 %b" % (blank[:CHECKSUM], sum(blank), blank[CHECKSUM + len(BLANK) :])


def dali_index(entries: Sequence[str]) -> bytes:
    """The .idx beside a tar, from a line for each sample."""
    return "\n".join([f"v1.2 {len(entries)}", *entries, ""]).encode()


class ShardWriter:
    """One tar and its DALI index, under temporary names until `commit`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = temporary(path)
        self._hash = hashlib.sha256()
        self._position = 0
        self._index: list[str] = []
        self._handle: IO[bytes] | None = None

    def __enter__(self) -> ShardWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = self._partial.open("wb", buffering=READ_BLOCK)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._handle is not None:
            self._handle.close()
        self._partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            named(error, self.path)

    def add(self, key: str, members: Sequence[tuple[str, bytes]], picture: str) -> Place:
        """Append a sample; the place of the member whose extension is `picture`."""
        place, position = Place(0, 0, 0), self._position
        entry: list[str] = []
        parts: list[bytes] = []
        for extension, data in members:
            name, size = f"{key}.{extension}", len(data)
            position += BLOCK
            entry.append(f"{extension} {position} {size} {name}")
            if extension == picture:
                place = Place(position, size, zlib.crc32(data))
            parts += (member_header(name, size), data, PADDING[: -size % BLOCK])
            position += size + -size % BLOCK
        self._write(b"".join(parts))  # one hash and one write for a sample, not one for each member
        self._index.append(" ".join(entry))
        return place

    def commit(self) -> ShardFile | None:
        """Close, sync and publish; None (and no file) for a shard without samples."""
        assert self._handle is not None
        if not self._index:
            return None
        self._write(END + bytes(-(self._position + len(END)) % RECORD))
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self._handle.close()
        index = dali_index(self._index)
        write_whole(self.path.with_suffix(".idx"), index)
        publish(self._partial, self.path)
        return ShardFile(
            name=self.path.name,
            samples=len(self._index),
            bytes=self._position,
            sha256=self._hash.hexdigest(),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )

    def _write(self, data: bytes) -> None:
        assert self._handle is not None
        self._handle.write(data)
        self._hash.update(data)
        self._position += len(data)
