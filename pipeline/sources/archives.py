"""Folders, tars and zips read the same way: a table of members, and where the bytes of each lie.

Nothing is ever extracted. A tar or zip is listed once; a member is then read at its offset in the
archive. A compressed tar is inflated first (`inflation`). Unsafe members (links, devices, `..`, absolute
paths) are reported and never read.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.records import Rejected, SourceFile
from pipeline.sources.folder_listing import walk_folder
from pipeline.sources.inflation import plain_file
from pipeline.sources.spans import (
    DEFLATED,
    LOCAL_HEADER,
    MEMBER_LIMIT,
    STORED,
    FileSpan,
    SpanReader,
    span_file,
)
from pipeline.sources.tar_listing import NOT_FOLLOWED, tar_members, unsafe_reason

TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES: Final = (*TAR_SUFFIXES, ".zip")
ARCHIVE_ERRORS: Final = (zipfile.BadZipFile, EOFError, struct.error, ValueError, NotImplementedError)
"""What `zipfile` and `tar_members` raise for what is no archive."""
LITTER: Final = frozenset({".ds_store", "thumbs.db", "desktop.ini", ".directory", "__macosx"})


def is_litter(path: str) -> bool:
    """Whether a file manager left this behind: `.DS_Store`, `._a.jpg`, `__MACOSX/a.jpg`."""
    name = path.rpartition("/")[2]
    return name.lower() in LITTER or name.startswith("._") or "__MACOSX/" in path


def source_file(path: Path) -> SourceFile:
    """Name and size of a file, for the manifest."""
    return SourceFile(name=path.name, bytes=path.stat().st_size)


@dataclass(frozen=True, slots=True)
class MemberTree:
    """The members of a folder or an archive by path, in sorted order."""

    root: Path
    """The folder that the `file` of each span is relative to."""
    scratch: Path | None
    members: dict[str, FileSpan]
    rejected: tuple[Rejected, ...] = ()
    files: tuple[SourceFile, ...] = ()
    where: str = ""
    """The folder or archive, for messages."""

    def under(self, prefix: str) -> Iterator[tuple[str, FileSpan]]:
        """The members below a folder, with paths relative to it."""
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        return ((path[len(prefix) :], span) for path, span in self.members.items() if path.startswith(prefix))

    def read(self, path: str) -> bytes:
        """Read one member whole, such as a list or a label file."""
        if path not in self.members:
            raise SourceMissing(f"{self.where} has no {path}; is it the archive it should be?")
        with SpanReader(self.root, self.scratch) as reader:
            return reader.read_span(self.members[path])


def open_tree(path: Path, root: Path | None = None, scratch: Path | None = None) -> MemberTree:
    """List a folder, tar, compressed tar or zip; spans are relative to `root`, by default `path`."""
    root = path if root is None else root
    relative = path.relative_to(root).as_posix()
    if path.is_dir():
        inside = "" if path == root else relative
        members, rejected = _without_rejected(walk_folder(path, inside))
        return MemberTree(root, scratch, members, rejected, (), str(path))
    if not path.is_file():
        there = "is not a file or folder" if path.exists() else "is not there"
        raise SourceMissing(f"{path} is needed and {there}")
    try:
        if zipfile.is_zipfile(path) or path.suffix == ".zip":
            members, rejected = _without_rejected(zip_members(path, span_file(relative)))
        else:
            plain, file = plain_file(path, span_file(relative), scratch)
            with plain.open("rb") as handle:
                members, rejected = _without_rejected(tar_members(handle, file))
    except ARCHIVE_ERRORS as error:
        raise IntegrityError(f"{path} is not a whole archive ({error}); download it again") from error
    return MemberTree(root, scratch, members, rejected, (source_file(path),), str(path))


def _without_rejected(
    entries: Iterable[tuple[str, FileSpan | str]],
) -> tuple[dict[str, FileSpan], tuple[Rejected, ...]]:
    """The members in sorted order, and those that are left out in the order of the listing."""
    members: dict[str, FileSpan] = {}
    rejected: list[Rejected] = []
    for name, span in entries:
        if isinstance(span, str):
            rejected.append(Rejected(name, span))
        elif name in members:
            rejected.append(Rejected(name, "a second member of this name"))
        else:
            members[name] = span
    return dict(sorted(members.items())), tuple(rejected)


def zip_members(path: Path, file: str) -> Iterator[tuple[str, FileSpan | str]]:
    """Yield name and span of each member of a zip, or why the member is left out."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.filename.endswith("/")]
    if sum(info.compress_size for info in members) > size:
        raise ValueError("its members lie over each other")  # few bytes that inflate without end
    for info in members:
        span = FileSpan(file, info.header_offset, info.compress_size, "zip")
        yield info.filename, _zip_reason(info, size) or span


def _zip_reason(info: zipfile.ZipInfo, size: int) -> str:
    """Why a member of a zip of this size is not read; "" if it may be."""
    if info.flag_bits & 1:
        return "encrypted"
    if info.compress_type not in (STORED, DEFLATED):
        return f"zip compression method {info.compress_type} is not supported"
    if stat.S_ISLNK(info.external_attr >> 16):
        return NOT_FOLLOWED
    if info.file_size > MEMBER_LIMIT:
        return f"would inflate to {info.file_size:,} bytes (limit {MEMBER_LIMIT:,})"
    if not 0 <= info.header_offset <= size - LOCAL_HEADER.size - info.compress_size:
        return "lies outside the archive; download it again"
    return unsafe_reason(info.filename)
