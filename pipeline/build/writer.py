"""Write encoded images as one tar: complete or not at all, and the same bytes every time.

Plain USTAR that webdataset, wids, DALI and `tar` read unchanged: short dot-free keys, the members
of a sample side by side, the same members in every sample, a fixed header, nothing else inside.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from pipeline.constants import MEMBER_NAME_BYTES
from pipeline.layout import PartialFile, make_folder, write_atomically
from pipeline.records import ShardFile

TAR_BLOCK: Final = 512
TAR_RECORD: Final = 20 * TAR_BLOCK  # archives are padded to a multiple of this
TAR_END: Final = bytes(2 * TAR_BLOCK)
TAR_HEADER: Final = (
    b"%s"  # name, 100 bytes
    b"0000444\0" b"0000000\0" b"0000000\0"  # mode, owner and group: the same for everybody
    b"%011o\0" b"00000000000\0"  # size; the epoch, so that the clock leaves no trace
    b"%s"  # checksum
    b"0" + bytes(100) + b"ustar\x0000" + bytes(32 + 32 + 8 + 8 + 155 + 12)  # no names, no devices
)  # fmt: skip
CHECKSUM_OFFSET: Final = 148  # of the checksum field in a header
BLANK_CHECKSUM: Final = b" " * 8  # the field's value while the checksum is summed
PADDING: Final = bytes(TAR_BLOCK)


class MemberLocation(NamedTuple):
    """The byte range of a sample's image in its tar, and its checksum."""

    offset: int
    length: int
    crc32: int


def member_header(name: str, size: int) -> bytes:
    """The 512 bytes before a member's data."""
    encoded = name.encode("ascii")
    if len(encoded) > MEMBER_NAME_BYTES:
        raise ValueError(f"{name!r} is longer than {MEMBER_NAME_BYTES} bytes")
    blank = TAR_HEADER % (encoded.ljust(MEMBER_NAME_BYTES, b"\0"), size, BLANK_CHECKSUM)
    return b"%b%06o\0 %b" % (
        blank[:CHECKSUM_OFFSET],
        sum(blank),
        blank[CHECKSUM_OFFSET + len(BLANK_CHECKSUM) :],
    )


def dali_index(entries: Sequence[str]) -> bytes:
    """The contents of the .idx beside a tar, from a line for each sample."""
    return "\n".join([f"v1.2 {len(entries)}", *entries, ""]).encode()


class ShardWriter:
    """Writes one tar and its DALI index, under temporary names until `commit`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = PartialFile(path)
        self._hash = hashlib.sha256()
        self._position = 0
        self._index: list[str] = []

    def __enter__(self) -> ShardWriter:
        make_folder(self.path.parent)
        self._partial.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._partial.__exit__()

    def add(self, key: str, members: Sequence[tuple[str, bytes]], image: str) -> MemberLocation:
        """Append a sample; returns the location of the member with the extension `image`."""
        location, position = MemberLocation(0, 0, 0), self._position
        entry: list[str] = []
        parts: list[bytes] = []
        for extension, data in members:
            name, size = f"{key}.{extension}", len(data)
            position += TAR_BLOCK
            entry.append(f"{extension} {position} {size} {name}")
            if extension == image:
                location = MemberLocation(position, size, zlib.crc32(data))
            parts += (member_header(name, size), data, PADDING[: -size % TAR_BLOCK])
            position += size + -size % TAR_BLOCK
        self._write(b"".join(parts))  # one hash and one write for a sample, not one for each member
        self._index.append(" ".join(entry))
        return location

    def commit(self) -> ShardFile | None:
        """Complete, sync and name the files; None (and no file) for a shard without samples."""
        if not self._index:
            return None
        self._write(TAR_END + bytes(-(self._position + len(TAR_END)) % TAR_RECORD))
        index = dali_index(self._index)
        write_atomically(self.path.with_suffix(".idx"), index)
        self._partial.publish()
        return ShardFile(
            name=self.path.name,
            samples=len(self._index),
            bytes=self._position,
            sha256=self._hash.hexdigest(),
            index_sha256=hashlib.sha256(index).hexdigest(),
        )

    def _write(self, data: bytes) -> None:
        self._partial.handle.write(data)
        self._hash.update(data)
        self._position += len(data)
