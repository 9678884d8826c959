"""Lists a tar: the name of each member and where its bytes lie. Nothing is extracted.

Python's tarfile takes a damaged header for the end of the archive, reads as many bytes as a header asks
for, and gives the wrong place for a sparse member. Here a header that is not whole is an error, lengths are
checked before anything is read, and a member whose bytes do not lie in one piece has a reason instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Final, NamedTuple

from pipeline.constants import READ_BLOCK
from pipeline.errors import IntegrityError
from pipeline.sources.spans import FileSpan

BLOCK_BYTES: Final = 512  # headers, and what members are padded to
HEADER_TEXT_LIMIT: Final = 1 << 20  # bytes of pax records, which hold attributes too
NAME_LIMIT: Final = 4096  # bytes of a path in Linux; names of a megabyte would fill the memory
MEMBER_COUNT_LIMIT: Final = 20_000_000  # of an archive; more than ImageNet-21k, a few GB of memory to list
REGULAR_KINDS: Final = frozenset({b"0", b"\0", b"7"})
EMPTY_KINDS: Final = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})  # links, devices, folders, pipes
FOLDER_KIND, SPARSE_KIND = b"5", b"S"
LONG_NAME, LONG_LINK = b"L", b"K"
PAX_NEXT, PAX_SUN, PAX_ALL = b"x", b"X", b"g"
TEXT_KINDS: Final = frozenset({LONG_NAME, LONG_LINK, PAX_NEXT, PAX_SUN, PAX_ALL})
SPARSE_PREFIX, SPARSE_NAME = "GNU.sparse.", "GNU.sparse.name"
USED_RECORDS: Final = frozenset({"path", "size", SPARSE_NAME})
NOT_IN_ONE_PIECE: Final = "a sparse member (tar -S), not in one piece; pack it without holes"
NOT_FOLLOWED: Final = "not a regular file (link or device), not followed"


def unsafe_reason(name: str) -> str:
    """Why a member of this name is not read; "" if it may be."""
    path = PurePosixPath(name.replace("\\", "/"))
    if not name:
        return "a member without a name"
    if path.is_absolute() or (len(name) > 1 and name[1] == ":"):
        return "absolute path, not followed"
    if ".." in path.parts:
        return "path leaves the archive, not followed"
    return ""


class TarHeader(NamedTuple):
    """What a header says of its member."""

    name: str
    kind: bytes
    size: int
    is_extended: bool
    """Of a sparse member: more blocks of its map follow the header."""


def parse_header(block: bytes) -> TarHeader:
    """Parse a header. Raises ValueError if it is damaged or none."""
    checksum = _number(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if checksum != unsigned and checksum != _signed_checksum(block, unsigned):
        raise ValueError("no tar header with its checksum")
    name, prefix, kind = _text(block[:100]), _text(block[345:500]), block[156:157]
    if kind == b"\0" and name.endswith("/"):
        kind = FOLDER_KIND
    if prefix and kind not in (LONG_NAME, LONG_LINK, SPARSE_KIND):
        name = f"{prefix}/{name}"
    return TarHeader(name, kind, _number(block[124:136]), block[482] != 0)


def _signed_checksum(block: bytes, unsigned: int) -> int:
    """The sum of signed bytes, as some old programs wrote it."""
    return unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])  # noqa: PLR2004


def _number(field: bytes) -> int:
    """A number in octal digits, or in base 256 where the top bit is set."""
    if field[0] == 0x80:  # noqa: PLR2004
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if digits.strip(b"01234567"):
        raise ValueError(f"{bytes(field)!r} is no number of a tar header")
    return int(digits or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax_records(data: bytes) -> dict[str, str]:
    """Those of the records "LENGTH KEY=VALUE\\n" of a pax header that are used. Raises ValueError."""
    records: dict[str, str] = {}
    position = 0
    while position < len(data):
        digits, _, _ = data[position : position + 20].partition(b" ")
        end = position + (int(digits) if digits.isdigit() else 0)
        if not position + len(digits) + 1 < end <= len(data) or data[end - 1 : end] != b"\n":
            raise ValueError("a pax record has no end")
        name, _, value = data[position + len(digits) + 1 : end - 1].partition(b"=")
        key = name.decode("utf-8", "replace")
        if key in USED_RECORDS or key.startswith(SPARSE_PREFIX):
            records[key if key in USED_RECORDS else SPARSE_PREFIX] = value.decode("utf-8", "surrogateescape")
        position = end
    return records


@dataclass(slots=True)
class _TarCursor:
    """A position in one tar, which may lie within a larger file."""

    file: int
    position: int
    end: int
    where: str
    members: int = 0

    def read(self, size: int) -> bytes:
        """Read the next bytes and go on to the block after them."""
        data = b""
        while len(data) < size and (more := os.pread(self.file, size - len(data), self.position + len(data))):
            data += more
        if len(data) < size or self.position + size > self.end:
            raise ValueError("it ends within a header")
        self.skip(size)
        return data

    def skip(self, size: int) -> None:
        self.position += -(-size // BLOCK_BYTES) * BLOCK_BYTES

    def read_text(self, header: TarHeader) -> bytes:
        """Read a long name or pax records."""
        if header.size > HEADER_TEXT_LIMIT:
            raise ValueError(f"a header of {header.size:,} bytes (limit {HEADER_TEXT_LIMIT:,})")
        return self.read(header.size)

    def check_end(self) -> None:
        """Check that nothing but zeros follows the block of zeros that ends the tar."""
        for start in range(self.position, self.end, READ_BLOCK):
            data = os.pread(self.file, min(READ_BLOCK, self.end - start), start)
            if data.strip(b"\0"):
                raise IntegrityError(
                    f"{self.where} goes on after its end at byte {self.position:,}: it is damaged, or two archives "
                    "in one file; download it again, or unpack it and pack it anew"
                )


def tar_members(handle: IO[bytes], file: str, end: int | None = None) -> Iterator[tuple[str, FileSpan | str]]:
    """Yield name and span of each member of the tar that starts here, or why the member is left out.

    end: of the tar, if it is not that of the file. Raises ValueError for what is no tar from its first byte
    on, IntegrityError for one that is damaged or cut off.
    """
    size = os.fstat(handle.fileno()).st_size
    cursor = _TarCursor(
        handle.fileno(), handle.tell(), size if end is None else end, file or str(handle.name)
    )
    pax_of_all: Mapping[str, str] = {}
    while True:
        start = cursor.position
        try:
            header, pax_of_all = _next_member(cursor, pax_of_all)
        except ValueError as error:
            if not cursor.members:
                raise
            raise IntegrityError(
                f"{cursor.where} is damaged or cut off at byte {start:,}, after {cursor.members:,} members "
                f"({error}); download it again"
            ) from error
        if header is None:
            cursor.check_end()
            return
        if header.kind != FOLDER_KIND:
            name = header.name.removeprefix("./")
            yield name, _member_span(cursor, header, file)
        if header.kind not in EMPTY_KINDS:
            cursor.skip(header.size)


def _member_span(cursor: _TarCursor, header: TarHeader, file: str) -> FileSpan | str:
    if header.kind not in EMPTY_KINDS and cursor.position + header.size > cursor.end:
        raise IntegrityError(f"{cursor.where} ends within {header.name}; download it again")
    if header.kind == SPARSE_KIND:
        return NOT_IN_ONE_PIECE
    if header.kind not in REGULAR_KINDS:
        return NOT_FOLLOWED
    return unsafe_reason(header.name) or FileSpan(file, cursor.position, header.size)


def _next_member(
    cursor: _TarCursor, pax_of_all: Mapping[str, str]
) -> tuple[TarHeader | None, Mapping[str, str]]:
    """Read the headers of the next member; None at the end. Also the pax records for all later members."""
    long_name, records = "", dict[str, str]()
    while (block := cursor.read(BLOCK_BYTES)).strip(b"\0"):
        header = parse_header(block)
        if header.kind not in TEXT_KINDS:
            cursor.members += 1
            if cursor.members > MEMBER_COUNT_LIMIT:
                raise ValueError(f"more than {MEMBER_COUNT_LIMIT:,} members")
            _skip_sparse_map(cursor, header)
            return _with_records(header, long_name, {**pax_of_all, **records}), pax_of_all
        text = cursor.read_text(header)
        if header.kind == LONG_NAME:
            long_name = _text(text)
        elif header.kind == PAX_ALL:
            pax_of_all = {**pax_of_all, **_pax_records(text)}
        elif header.kind != LONG_LINK:
            records = _pax_records(text)
    return None, pax_of_all


def _skip_sparse_map(cursor: _TarCursor, header: TarHeader) -> None:
    is_extended = header.kind == SPARSE_KIND and header.is_extended
    while is_extended:
        is_extended = cursor.read(BLOCK_BYTES)[504] != 0


def _with_records(header: TarHeader, long_name: str, records: Mapping[str, str]) -> TarHeader:
    """The header with what long names and pax records say in its place."""
    name = records.get(SPARSE_NAME, records.get("path", long_name or header.name))
    size = records.get("size", "")
    if size and not (size.isascii() and size.isdigit()):
        raise ValueError(f"{size!r:.40} is no size")
    if len(name) > NAME_LIMIT:
        raise ValueError(f"a name of {len(name):,} characters (limit {NAME_LIMIT:,})")
    is_sparse = SPARSE_PREFIX in records or SPARSE_NAME in records
    return header._replace(
        name=name.rstrip("/") if header.kind == FOLDER_KIND else name,
        kind=SPARSE_KIND if is_sparse and header.kind in REGULAR_KINDS else header.kind,
        size=int(size or header.size),
    )
