"""What has to be downloaded for each dataset, and where it lies on the user's disk.

Every download may lie there as it came or unpacked, in the dataset's folder or one folder deeper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from pipeline.errors import IntegrityError, SourceMissing, few
from pipeline.sources.archives import ARCHIVE_SUFFIXES, Tree, open_tree

MEGABYTE: Final = 10**6
GIGABYTE: Final = 10**9
ANYTHING: Final = "*"
SHOWN: Final = 5  # names in a message before it only counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One download of a dataset, and what it looks like unpacked."""

    file: str
    """The official name."""
    url: str
    """The file, or the page that leads to it."""
    bytes: int
    """About."""
    also: tuple[str, ...] = ()
    """Other names under which people have it."""
    folders: tuple[str, ...] = ()
    """Where the contents lie within the archive, and so where unpacking puts them."""
    marker: str = ""
    """A name (or pattern) in that folder that tells it from others whatever it is called; "*": only
    its own name does; "": the part is a file and no archive."""
    optional: bool = False

    def __str__(self) -> str:
        return f"{self.file} ({size_text(self.bytes)}, {self.url})"


def size_text(count: int) -> str:
    """Bytes for people.

    >>> size_text(147_897_477_120), size_text(9_464_212), size_text(502)
    ('148 GB', '9.5 MB', '502 bytes')
    """
    for unit, name in ((GIGABYTE, "GB"), (MEGABYTE, "MB")):
        if count >= unit:
            return (
                f"{count / unit:.1f} {name}" if count < 10 * unit else f"{count / unit:.0f} {name}"
            )
    return f"{count:,} bytes"


def located(part: Part, root: Path) -> Path | None:
    """The unpacked folder if there is one, else the file as it came, else None."""
    return _unpacked(part, root) or _packed(part, root)


def needed(dataset: str, parts: Sequence[Part], root: Path) -> SourceMissing:
    """The error that says all that the dataset needs and which of it was not found."""
    lines = [
        f"  {'missing' if located(part, root) is None else 'found  '}  {part}"
        + ("" if not part.folders else f"\n           or unpacked: {part.folders[0]}/{part.marker}")
        for part in parts
    ]
    there = "" if root.exists() else " (which does not exist)"
    return SourceMissing(
        f"{dataset} needs what is marked 'missing'; put it into {root}{there}:\n"
        + "\n".join(lines)
        + f"\n  looked in {root} and in the folders in it"
    )


def opened(part: Part, root: Path, scratch: Path | None) -> Tree:
    """The contents of an archive or of its unpacked folder, with paths below `part.folders`."""
    path = located(part, root)
    if path is None:
        raise SourceMissing(f"{part} is needed and is not in {root}")
    tree = open_tree(path, root, scratch)
    if path.is_dir():
        return tree
    for folder in _folders(part):
        members = dict(tree.under(folder))
        if any(fnmatchcase(name.split("/", 1)[0], part.marker) for name in members):
            return Tree(
                root,
                scratch,
                members,
                tree.rejected,
                tree.files,
                f"{path}{folder and ':' + folder}",
            )
    inside = sorted({name.split("/", 1)[0] for name in tree.members})
    raise IntegrityError(
        f"{path} should hold {part.folders[0]}/{part.marker} and holds {listed(inside)}; it is not "
        f"the official file, or it is damaged: {part}"
    )


def listed(names: Sequence[str]) -> str:
    """The first few names, and how many more."""
    return few(names, SHOWN) or "nothing"


def _folders(part: Part) -> tuple[str, ...]:
    """Where to look; with a telling marker also where the contents lie in no folder of their own."""
    return part.folders if part.marker == ANYTHING else (*part.folders, "")


def _unpacked(part: Part, root: Path) -> Path | None:
    if not part.marker:
        return None
    for base in places(root):
        for folder in _folders(part):
            if any((base / folder).glob(part.marker)):
                return base / folder
    return None


def _packed(part: Part, root: Path) -> Path | None:
    names = {part.file, *part.also}
    stem = _stem(part.file)
    if part.marker and stem != part.file:
        names |= {stem + suffix for suffix in ARCHIVE_SUFFIXES}
    if root.is_file():
        return root if root.name in names else None
    files = (base / name for base in places(root) for name in sorted(names))
    return next((file for file in files if file.is_file()), None)


def _stem(name: str) -> str:
    """The name without the suffix of an archive: people recompress, and browsers inflate."""
    suffixes = sorted(ARCHIVE_SUFFIXES, key=len, reverse=True)
    return next((name.removesuffix(s) for s in suffixes if name.endswith(s)), name)


def places(root: Path) -> Iterator[Path]:
    """Where a download may lie: the dataset's folder and the folders in it."""
    if root.is_dir():
        yield root
        try:
            yield from sorted(child for child in root.iterdir() if child.is_dir())
        except PermissionError as error:
            raise SourceMissing(f"{root} may not be listed by this user; allow it") from error
