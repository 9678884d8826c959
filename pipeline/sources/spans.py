"""Spans: where in a source's files the bytes of an image lie, and how they are read and checked."""

from __future__ import annotations

import errno
import os
import stat
import struct
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pipeline.constants import OPEN_FILES, PIXEL_LIMIT
from pipeline.errors import IntegrityError, UsageError, errors_about
from pipeline.foreign_files import READ_FLAGS, UnfitFileError, read_regular
from pipeline.records import Item

SCRATCH: Final = "@"  # marks a span whose file lies in the scratch folder
HERE: Final = "./"  # before a file of the source whose name begins like that mark
MEMBER_LIMIT: Final = 4 * PIXEL_LIMIT  # bytes; more than the largest image that we decode
LOCAL_HEADER: Final = struct.Struct("<4sHHHHHLLLHH")  # of a zip member
STORED, DEFLATED, HAS_DESCRIPTOR = (0, 8, 0x08)  # compression methods; flag: the checksum follows the data
FATAL_ERRNO: Final = frozenset({errno.ENOENT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE})
"""Not the image's fault: the source has gone away, so the build stops and quarantines nothing."""


class FileSpan(NamedTuple):
    """Where the bytes of a member lie; an `Item` has the same four fields."""

    file: str
    offset: int = 0
    length: int = -1
    packing: Literal["plain", "whole", "zip"] = "plain"


def span_file(relative: str) -> str:
    """The `file` of spans in a file of the source, from its path relative to the root ("." for the root)."""
    if relative.startswith(SCRATCH):
        return HERE + relative
    return "" if relative == "." else relative


def unreadable_reason(error: OSError) -> str:
    """Why the system refuses a file or folder; raised again if the source itself has gone away."""
    if error.errno in FATAL_ERRNO:
        raise error
    return f"cannot be read: {error.strerror}"


def read_list(path: Path) -> bytes:
    """The bytes of a list, label or annotation file beside the images."""
    try:
        return read_regular(path, MEMBER_LIMIT)
    except UnfitFileError as error:
        raise IntegrityError(f"{path} {error.strerror}") from None


class SpanReader:
    """Reads spans; keeps a bounded number of files open."""

    def __init__(self, root: Path, scratch: Path | None = None) -> None:
        self._root, self._scratch = root, scratch
        self._open: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> SpanReader:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()

    def read(self, item: Item) -> bytes:
        """Read the bytes of an item."""
        return self.read_span(FileSpan(item.file, item.offset, item.length, item.packing))

    def read_span(self, span: FileSpan) -> bytes:
        """Read the bytes of a span; a zip member is inflated and its checksum verified."""
        handle = self._handle(span.file)
        with errors_about(self.path(span.file)):
            return self._read_open(handle, span)

    def _read_open(self, handle: int, span: FileSpan) -> bytes:
        if span.packing == "zip":
            return _zip_member(handle, span)
        size = os.fstat(handle).st_size
        if span.packing == "whole" and size != span.length:
            raise UsageError(
                f"{self.path(span.file)} has {size:,} bytes and had {span.length:,} when this build was planned; "
                "bring the old files back, or delete the output folder and build again"
            )
        length = size - span.offset if span.length < 0 else span.length
        return _read_exactly(handle, span.offset, length)

    def _handle(self, file: str) -> int:
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        if len(self._open) >= OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        handle = os.open(self.path(file), READ_FLAGS)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise IntegrityError("cannot be read: not a regular file (folder, pipe or device)")
        self._open[file] = handle
        return handle

    def path(self, file: str) -> Path:
        """The path of a span's file."""
        if not file.startswith(SCRATCH):
            return self._root / file
        if self._scratch is None:
            raise UsageError(f"{file} lies in the scratch folder, and this source was given none")
        return self._scratch / file.removeprefix(SCRATCH)


def _read_exactly(handle: int, offset: int, length: int) -> bytes:
    """All bytes of a span; no memory is asked for before the file is known to have them."""
    if length > MEMBER_LIMIT:
        raise IntegrityError(f"{length:,} bytes are more than the limit of {MEMBER_LIMIT:,}")
    found = os.fstat(handle).st_size - offset
    data = b""
    while len(data) < length <= found:
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            found = len(data)  # the file has just been cut off
        data += more
    if len(data) != length:
        raise IntegrityError(f"{length:,} bytes expected at {offset:,}, found {max(found, 0):,}")
    return data


def _zip_member(handle: int, span: FileSpan) -> bytes:
    header = LOCAL_HEADER.unpack(_read_exactly(handle, span.offset, LOCAL_HEADER.size))
    signature, _, flags, method, _, _, crc, _, _, name_bytes, extra_bytes = header
    if signature != b"PK\x03\x04":
        raise IntegrityError("the zip's member header is damaged")
    start = span.offset + LOCAL_HEADER.size + name_bytes + extra_bytes
    data = _read_exactly(handle, start, span.length)
    if flags & HAS_DESCRIPTOR:
        descriptor = _read_exactly(handle, start + span.length, 8)
        (crc,) = struct.unpack("<L", descriptor[4:] if descriptor[:4] == b"PK\x07\x08" else descriptor[:4])
    if method == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, MEMBER_LIMIT)
        except zlib.error as error:
            raise IntegrityError(f"the zip's member does not inflate ({error})") from error
    if zlib.crc32(data) != crc:
        raise IntegrityError("the zip's member does not match its checksum")
    return data
