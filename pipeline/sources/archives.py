"""Folders and archives as one thing: names, and the bytes behind them.

Nothing is ever extracted. A tar or zip is listed once; a member is then read from its place in the
archive. A compressed tar has no places, so it is inflated, as one file, into the build's scratch
folder. Members that a careful reader does not follow (links, devices, `..`, absolute paths) are
reported and never touched.
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
from pipeline.sources.spans import DEFLATED, MEMBER_LIMIT, SCRATCH, STORED, Span, SpanReader

COMPRESSED: Final = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARCHIVE_SUFFIXES: Final = (*TAR_SUFFIXES, ".zip")
ARCHIVE_ERRORS: Final = (  # what the readers of the standard library raise on damaged lists
    zipfile.BadZipFile,
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ValueError,
    NotImplementedError,
)


@dataclass(frozen=True, slots=True)
class Tree:
    """The members of a folder or an archive, by path, in sorted order."""

    root: Path
    """What a span's `file` is relative to."""
    scratch: Path | None
    members: dict[str, Span]
    rejected: tuple[Rejected, ...] = ()
    files: tuple[SourceFile, ...] = ()
    where: str = ""
    """The folder or archive, for messages."""

    def under(self, prefix: str) -> Iterator[tuple[str, Span]]:
        """Members below a folder, with paths relative to it."""
        prefix = prefix.rstrip("/") + "/" if prefix else ""
        return (
            (path[len(prefix) :], span)
            for path, span in self.members.items()
            if path.startswith(prefix)
        )

    def read(self, path: str) -> bytes:
        """The bytes of one member (a list, a label file)."""
        if path not in self.members:
            raise SourceMissing(f"{self.where} has no {path}; is it the archive it should be?")
        with SpanReader(self.root, self.scratch) as reader:
            return reader.read_span(self.members[path])


def open_tree(path: Path, root: Path | None = None, scratch: Path | None = None) -> Tree:
    """A folder, tar, compressed tar or zip. Spans are relative to `root` (default: to `path` itself)."""
    root = path if root is None else root
    relative = "" if path == root else path.relative_to(root).as_posix()
    if path.is_dir():
        members, rejected = _list_folder(path, relative)
        return Tree(root, scratch, members, rejected, (), str(path))
    if not path.exists():
        raise SourceMissing(f"{path} is needed and is not there")
    files = (SourceFile(name=path.name, bytes=path.stat().st_size),)
    try:
        if zipfile.is_zipfile(path) or path.suffix == ".zip":
            found = list(zip_members(path, relative))
        else:
            plain, name = _plain_tar(path, relative, scratch)
            with plain.open("rb") as handle:
                found = list(tar_members(handle, name))
    except ARCHIVE_ERRORS as error:
        raise IntegrityError(
            f"{path} is not a whole archive ({error}); download it again"
        ) from error
    members, rejected = _sorted_out(found)
    return Tree(root, scratch, dict(sorted(members.items())), rejected, files, str(path))


def _sorted_out(
    found: list[tuple[str, Span | str]],
) -> tuple[dict[str, Span], tuple[Rejected, ...]]:
    members: dict[str, Span] = {}
    rejected: list[Rejected] = []
    for name, place in found:
        if isinstance(place, str):
            rejected.append(Rejected(name, place))
        elif name in members:
            rejected.append(Rejected(name, "a second member of this name"))
        else:
            members[name] = place
    return members, tuple(rejected)


def unsafe(name: str) -> str:
    """Why a member's name is not followed, or ""."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or (len(name) > 1 and name[1] == ":"):
        return "absolute path, not followed"
    if ".." in path.parts:
        return "path leaves the archive, not followed"
    return ""


def tar_members(handle: IO[bytes], file: str) -> Iterator[tuple[str, Span | str]]:
    """Name and span (or the reason for leaving it out) of each member of the tar that starts here.

    Python's tarfile takes a damaged header for the end of the archive; here that is an error.
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
            reason = unsafe(name)
            yield name, reason or Span(file, member.offset_data, member.size)
        elif not member.isdir():
            yield name, "not a regular file (link or device), not followed"
    handle.seek(archive.offset)
    if handle.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise IntegrityError(
            f"{file or handle.name} is damaged or cut off at byte {archive.offset:,}, after "
            f"{count:,} members; download it again"
        )


def zip_members(path: Path, file: str) -> Iterator[tuple[str, Span | str]]:
    """Name and span (or the reason for leaving it out) of each member of a zip."""
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            reason = unsafe(info.filename)
            if info.flag_bits & 1:
                reason = "encrypted"
            elif info.compress_type not in (STORED, DEFLATED):
                reason = f"zip compression method {info.compress_type} is not supported"
            elif stat.S_ISLNK(info.external_attr >> 16):
                reason = "not a regular file (link or device), not followed"
            elif info.file_size > MEMBER_LIMIT:
                reason = f"would inflate to {info.file_size:,} bytes (limit {MEMBER_LIMIT:,})"
            span = Span(file, info.header_offset, info.compress_size, "zip")
            yield info.filename, reason or span


def _list_folder(path: Path, relative: str) -> tuple[dict[str, Span], tuple[Rejected, ...]]:
    members: dict[str, Span] = {}
    rejected: list[Rejected] = []

    def unreadable(error: OSError) -> None:
        rejected.append(Rejected(str(error.filename), f"folder cannot be listed: {error.strerror}"))

    for folder, folders, files in os.walk(path, onerror=unreadable):
        folders.sort()
        here = Path(folder).relative_to(path).as_posix()
        for name in sorted(files):
            member = name if here == "." else f"{here}/{name}"
            members[member] = Span(f"{relative}/{member}" if relative else member)
    return dict(sorted(members.items())), tuple(rejected)


def _plain_tar(path: Path, relative: str, scratch: Path | None) -> tuple[Path, str]:
    """The tar itself, or its inflated copy in the scratch folder."""
    with path.open("rb") as handle:
        start = handle.read(6)
    opener = next((o for magic, o in COMPRESSED.items() if start.startswith(magic)), None)
    if opener is None:
        return path, relative
    if scratch is None:
        raise UsageError(f"{path} is compressed and there is no scratch folder to inflate it into")
    return inflated(path, scratch, cast("Any", opener))


def inflated(path: Path, scratch: Path, opener: Any = gzip.open) -> tuple[Path, str]:
    """The whole, decompressed copy of a file in the scratch folder, made once."""
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
            raise IntegrityError(
                f"{path} is cut off or damaged ({error}); download it again"
            ) from error
        except OSError as error:
            if error.errno is None:  # bz2 reports damaged data this way
                raise IntegrityError(f"{path} is damaged ({error}); download it again") from error
            raise
        finally:
            partial.unlink(missing_ok=True)
    return target, SCRATCH + target.name
