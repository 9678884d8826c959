"""Folders, tars and zips read the same way: a table of members, and where the bytes of each lie.

Nothing is ever extracted. A tar or zip is listed once; a member is then read at its offset in the
archive. A compressed tar has no offsets, so it is inflated, as one file, into the build's scratch
folder. Unsafe members (links, devices, `..`, absolute paths) are reported and never read.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from pipeline.constants import READ_BLOCK
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.records import Rejected, SourceFile
from pipeline.sources.spans import DEFLATED, MEMBER_LIMIT, SCRATCH, STORED, FileSpan, SpanReader

GZIP_MAGIC: Final = b"\x1f\x8b"
DECOMPRESSORS: Final = {GZIP_MAGIC: gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES: Final = (*TAR_SUFFIXES, ".zip")
ARCHIVE_ERRORS: Final = (  # what the standard library raises on a damaged archive
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    NotImplementedError,
)
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
    relative = "" if path == root else path.relative_to(root).as_posix()
    if path.is_dir():
        members, rejected = _list_folder(path, relative)
        return MemberTree(root, scratch, members, rejected, (), str(path))
    if not path.exists():
        raise SourceMissing(f"{path} is needed and is not there")
    try:
        if zipfile.is_zipfile(path) or path.suffix == ".zip":
            entries = list(zip_members(path, relative))
        else:
            plain, name = plain_file(path, relative, scratch)
            with plain.open("rb") as handle:
                entries = list(tar_members(handle, name))
    except ARCHIVE_ERRORS as error:
        raise IntegrityError(f"{path} is not a whole archive ({error}); download it again") from error
    members, rejected = _without_rejected(entries)
    members, files = dict(sorted(members.items())), (source_file(path),)
    return MemberTree(root, scratch, members, rejected, files, str(path))


def _without_rejected(
    entries: list[tuple[str, FileSpan | str]],
) -> tuple[dict[str, FileSpan], tuple[Rejected, ...]]:
    members: dict[str, FileSpan] = {}
    rejected: list[Rejected] = []
    for name, span in entries:
        if isinstance(span, str):
            rejected.append(Rejected(name, span))
        elif name in members:
            rejected.append(Rejected(name, "a second member of this name"))
        else:
            members[name] = span
    return members, tuple(rejected)


def unsafe_reason(name: str) -> str:
    """Why a member of this name is not read; "" if it may be."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or (len(name) > 1 and name[1] == ":"):
        return "absolute path, not followed"
    if ".." in path.parts:
        return "path leaves the archive, not followed"
    return ""


def tar_members(handle: IO[bytes], file: str) -> Iterator[tuple[str, FileSpan | str]]:
    """Yield name and span of each member of the tar that starts here, or why the member is left out.

    Python's tarfile takes a damaged header for the end of the archive; here it is an error.
    """
    archive = tarfile.open(fileobj=handle, mode="r:")  # noqa: SIM115  (the caller owns the handle)
    count, size = 0, os.fstat(handle.fileno()).st_size
    while (member := archive.next()) is not None:
        count += 1
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every member; an archive may hold a million
        name = member.name.removeprefix("./")
        if member.isfile():
            if member.offset_data + member.size > size:
                raise IntegrityError(f"{file or handle.name} ends within {name}; download it again")
            reason = unsafe_reason(name)
            yield name, reason or FileSpan(file, member.offset_data, member.size)
        elif not member.isdir():
            yield name, "not a regular file (link or device), not followed"
    handle.seek(archive.offset)
    if handle.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise IntegrityError(
            f"{file or handle.name} is damaged or cut off at byte {archive.offset:,}, after "
            f"{count:,} members; download it again"
        )


def zip_members(path: Path, file: str) -> Iterator[tuple[str, FileSpan | str]]:
    """Yield name and span of each member of a zip, or why the member is left out."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            reason = unsafe_reason(info.filename)
            if info.flag_bits & 1:
                reason = "encrypted"
            elif info.compress_type not in (STORED, DEFLATED):
                reason = f"zip compression method {info.compress_type} is not supported"
            elif stat.S_ISLNK(info.external_attr >> 16):
                reason = "not a regular file (link or device), not followed"
            elif info.file_size > MEMBER_LIMIT:
                reason = f"would inflate to {info.file_size:,} bytes (limit {MEMBER_LIMIT:,})"
            span = FileSpan(file, info.header_offset, info.compress_size, "zip")
            yield info.filename, reason or span


def _list_folder(path: Path, relative: str) -> tuple[dict[str, FileSpan], tuple[Rejected, ...]]:
    members: dict[str, FileSpan] = {}
    rejected: list[Rejected] = []

    def unreadable(error: OSError) -> None:
        rejected.append(Rejected(str(error.filename), f"folder cannot be listed: {error.strerror}"))

    for folder, folders, files in os.walk(path, onerror=unreadable):
        folders.sort()
        here = Path(folder).relative_to(path).as_posix()
        for name in sorted(files):
            member = name if here == "." else f"{here}/{name}"
            members[member] = FileSpan(f"{relative}/{member}" if relative else member)
    return dict(sorted(members.items())), tuple(rejected)


def plain_file(path: Path, relative: str, scratch: Path | None) -> tuple[Path, str]:
    """The file itself or, if it is compressed, its inflated copy; and the `file` of its spans."""
    with path.open("rb") as handle:
        start = handle.read(6)
    opener = next((o for magic, o in DECOMPRESSORS.items() if start.startswith(magic)), None)
    if opener is None:
        return path, relative
    if scratch is None:
        raise UsageError(f"{path} is compressed and there is no scratch folder to inflate it into")
    return inflate_to_scratch(path, scratch, cast("Any", opener))


def inflate_to_scratch(path: Path, scratch: Path, opener: Any = gzip.open) -> tuple[Path, str]:
    """Decompress a file into the scratch folder, once; the copy appears when it is complete."""
    target = scratch / f"{path.name}.inflated"
    if not target.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        partial = scratch / f"{path.name}.{os.getpid()}.partial"
        try:
            with opener(path, "rb") as source, partial.open("wb") as copy:
                shutil.copyfileobj(source, copy, READ_BLOCK)
                copy.flush()
                os.fsync(copy.fileno())
            partial.replace(target)
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise IntegrityError(f"{path} is cut off or damaged ({error}); download it again") from error
        except OSError as error:
            if error.errno is None:  # bz2 reports damaged data this way
                raise IntegrityError(f"{path} is damaged ({error}); download it again") from error
            raise
        finally:
            partial.unlink(missing_ok=True)
    return target, SCRATCH + target.name
