"""The downloads of a dataset, and where they lie on the user's disk.

A download may lie there packed or unpacked, in the dataset's folder or one folder deeper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from pipeline.errors import IntegrityError, SourceMissing, first_few
from pipeline.sources.archives import ARCHIVE_SUFFIXES, MemberTree, open_tree

MEGABYTE: Final = 10**6
GIGABYTE: Final = 10**9
ANYTHING: Final = "*"


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadPart:
    """One download of a dataset, and what it looks like unpacked."""

    file: str
    """Its official name."""
    url: str
    """Of the file, or of the page that leads to it."""
    bytes: int
    """Approximately."""
    also: tuple[str, ...] = ()
    """Other names under which people have it."""
    folders: tuple[str, ...] = ()
    """Where the contents lie in the archive, and therefore where unpacking puts them."""
    marker: str = ""
    """A name (or pattern) of a file in that folder, by which the folder is recognised under any name;
    "*": only by its own name; "": the download is a plain file."""
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.file} ({size_text(self.bytes)}, {self.url})"


def size_text(count: int) -> str:
    """A number of bytes in words.

    >>> size_text(147_897_477_120), size_text(9_464_212), size_text(502)
    ('148 GB', '9.5 MB', '502 bytes')
    """
    for unit, name in ((GIGABYTE, "GB"), (MEGABYTE, "MB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}" if count < 10 * unit else f"{count / unit:.0f} {name}"
    return f"{count:,} bytes"


def locate_part(part: DownloadPart, root: Path) -> Path | None:
    """The unpacked folder if there is one, else the file as downloaded, else None."""
    return _find_unpacked(part, root) or _find_packed(part, root)


def missing_parts_error(dataset: str, parts: Sequence[DownloadPart], root: Path) -> SourceMissing:
    """The error that lists the downloads of a dataset and which of them are missing."""
    lines = [
        f"  {'missing' if locate_part(part, root) is None else 'found  '}  {part}"
        + ("" if not part.folders else f"\n           or unpacked: {part.folders[0]}/{part.marker}")
        for part in parts
    ]
    there = "" if root.exists() else " (which does not exist)"
    return SourceMissing(
        f"{dataset} needs what is marked 'missing'; put it into {root}{there}:\n"
        + "\n".join(lines)
        + f"\n  looked in {root} and in the folders in it"
    )


def open_part(part: DownloadPart, root: Path, scratch: Path | None) -> MemberTree:
    """The contents of an archive or of its unpacked folder, with paths relative to `part.folders`."""
    path = locate_part(part, root)
    if path is None:
        raise SourceMissing(f"{part} is needed and is not in {root}")
    tree = open_tree(path, root, scratch)
    if path.is_dir():
        return tree
    for folder in _content_folders(part):
        members = dict(tree.under(folder))
        if any(fnmatchcase(name.split("/", 1)[0], part.marker) for name in members):
            return MemberTree(
                root, scratch, members, tree.rejected, tree.files, f"{path}{folder and ':' + folder}"
            )
    inside = sorted({name.split("/", 1)[0] for name in tree.members})
    raise IntegrityError(
        f"{path} should hold {part.folders[0]}/{part.marker} and holds {first_few(inside) or 'nothing'}; it "
        f"is not the official file, or it is damaged: {part}"
    )


def _content_folders(part: DownloadPart) -> tuple[str, ...]:
    """The folders to look in; with a marker that identifies the contents, also the top one."""
    return part.folders if part.marker == ANYTHING else (*part.folders, "")


def _find_unpacked(part: DownloadPart, root: Path) -> Path | None:
    if not part.marker:
        return None
    for base in search_folders(root):
        for folder in _content_folders(part):
            if any((base / folder).glob(part.marker)):
                return base / folder
    return None


def _find_packed(part: DownloadPart, root: Path) -> Path | None:
    names = {part.file, *part.also}
    stem = _without_archive_suffix(part.file)
    if part.marker and stem != part.file:
        names |= {stem + suffix for suffix in ARCHIVE_SUFFIXES}
    if root.is_file():
        return root if root.name in names else None
    files = (base / name for base in search_folders(root) for name in sorted(names))
    return next((file for file in files if file.is_file()), None)


def _without_archive_suffix(name: str) -> str:
    """The name without the suffix of an archive: people recompress files, and browsers inflate them."""
    suffixes = sorted(ARCHIVE_SUFFIXES, key=len, reverse=True)
    return next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)


def search_folders(root: Path) -> Iterator[Path]:
    """The folders in which a download may lie: the dataset's folder and the folders in it."""
    if root.is_dir():
        yield root
        try:
            yield from sorted(child for child in root.iterdir() if child.is_dir())
        except PermissionError as error:
            raise SourceMissing(f"{root} may not be listed by this user; allow it") from error
