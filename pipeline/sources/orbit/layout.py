"""Where ORBIT's videos lie: `train/P177/bag/clean/P177--bag--clean--<id>/...-00001.jpg`.

The published set as folders, or as the ZIPs it is downloaded in; the unfiltered set, which has no
level of splits; and videos (`<name>.mp4`) in the place of folders of frames.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from pipeline.records import Rejected, SourceFile
from pipeline.sources.archives import open_tree
from pipeline.sources.folder import IGNORED
from pipeline.sources.orbit.annotations import FOLDER
from pipeline.sources.orbit.video import VIDEO_SUFFIXES
from pipeline.sources.spans import Span

SPLIT_FOLDERS: Final = ("train", "validation", "test", "other")  # other: unfiltered set only
KINDS: Final = ("clean", "clutter", "clutter-pan")
FRAME_SUFFIXES: Final = (".jpg", ".jpeg", ".png")
LAYOUT: Final = "<split>/<user>/<object>/<clean or clutter>/<video>/<video>-NNNNN.jpg"


class Place(NamedTuple):
    """What the path of a video says."""

    level: str
    """The split's folder; "" in a set without that level."""
    user: str
    object: str
    kind: str
    video: str


class Video(NamedTuple):
    """A video, its frames not yet listed."""

    place: Place
    path: str
    """The folder of frames or the video file, below the root or in the archive."""
    archive: str | None = None
    """The archive with its frames, below the root."""
    spans: array[int] | None = None
    """Of frames in an archive: number, offset and length, one after the other."""

    @property
    def raw(self) -> bool:
        """Whether it is a video file and not a folder of frames."""
        return self.archive is None and PurePosixPath(self.path).suffix.lower() in VIDEO_SUFFIXES


@dataclass(slots=True)
class Listing:
    """What lies below a root."""

    base: Path
    """The folder that holds the splits."""
    videos: list[Video] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    annotations: dict[tuple[str, str], Span] = field(default_factory=dict)
    """Those in archives, by split's folder and video."""


def place(parts: Sequence[str]) -> Place | None:
    """What a video's path means, or None if it is not where a video should be.

    >>> place(("test", "P177", "bag", "clean", "P177--bag--clean--x--y"))
    Place(level='test', user='P177', object='bag', kind='clean', video='P177--bag--clean--x--y')
    """
    level, rest = _level(parts)
    match rest:
        case [user, thing, kind, video] if kind in KINDS:
            return Place(level, user, thing, kind, video)
        case [user, thing, video]:  # no level of kinds: the name says it
            names = video.split("--", 3)  # ids may hold "--" and start with "-"
            if len(names) > 3 and names[2] in KINDS:  # noqa: PLR2004
                return Place(level, user, thing, names[2], video)
    return None


def _level(parts: Sequence[str]) -> tuple[str, Sequence[str]]:
    return (parts[0], parts[1:]) if parts and parts[0] in SPLIT_FOLDERS else ("", parts)


def _leads_on(parts: Sequence[str]) -> bool:
    """Whether videos may lie deeper."""
    _, rest = _level(parts)
    return len(rest) < 3 or (len(rest) == 3 and rest[2] in KINDS)  # noqa: PLR2004


def litter(name: str) -> bool:
    """What file managers leave behind."""
    return name.lower() in IGNORED or name.startswith("._")


def list_videos(root: Path, scratch: Path | None = None) -> Listing:
    """Every video below a folder, or in one archive; frames in folders are not listed yet."""
    if root.is_file():
        listing = Listing(root.parent)
        _list_archive(root, root, scratch, listing)
        return listing
    listing = Listing(_base(root))
    for found in _walk(listing.base, ()):
        if isinstance(found, Rejected):
            listing.rejected.append(found)
        else:
            where, path = found
            listing.videos.append(Video(where, path.relative_to(root).as_posix()))
    for archive in sorted(listing.base.glob("*.zip")):
        _list_archive(archive, root, scratch, listing)
    return listing


def _base(root: Path) -> Path:
    """The root, or the one folder in it that holds the splits."""
    candidates = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    holding = [c for c in candidates if any((c / split).is_dir() for split in SPLIT_FOLDERS)]
    return holding[0] if holding and (holding[0] == root or len(holding) == 1) else root


def _walk(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[Place, Path] | Rejected]:
    """The videos, in sorted order; what lies elsewhere is rejected, a folder as one."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield Rejected("/".join(parts), f"folder cannot be listed: {error.strerror}")
        return
    for entry in entries:
        here, path = (*parts, entry.name), Path(entry.path)
        if litter(entry.name) or here == (FOLDER,) or (not parts and path.suffix == ".zip"):
            continue
        raw = path.suffix.lower() in VIDEO_SUFFIXES and entry.is_file()
        where = place((*parts, path.stem) if raw else here)
        if where and (raw or entry.is_dir()):
            yield where, path
        elif entry.is_dir() and _leads_on(here):
            yield from _walk(path, here)
        else:
            yield Rejected("/".join(here), f"lies outside ORBIT's layout ({LAYOUT})")


def _list_archive(path: Path, root: Path, scratch: Path | None, listing: Listing) -> None:
    """Add the videos and annotations of one archive, its frames as numbers."""
    tree = open_tree(path, root, scratch)
    listing.files.extend(tree.files)
    listing.rejected.extend(tree.rejected)
    videos: dict[str, Video] = {}
    for member, span in tree.members.items():
        folder, _, name = member.rpartition("/")
        if litter(name) or member.startswith("__MACOSX/"):
            continue
        if name.endswith(".json"):
            level = folder.rpartition("/")[2]
            where = level if level in SPLIT_FOLDERS else ""
            listing.annotations[where, name.removesuffix(".json")] = span
            continue
        if folder not in videos and (found := _archived(folder, path.stem)):
            videos[folder] = Video(found, folder, span.file, array("q"))
        number = frame_number(name, videos[folder].place.video) if folder in videos else None
        if number is None:
            listing.rejected.append(Rejected(member, _why_not(member)))
            continue
        spans = videos[folder].spans
        assert spans is not None
        spans.extend((number, span.offset, span.length))
    listing.videos.extend(videos.values())


def _archived(folder: str, archive: str) -> Place | None:
    """The place of a video in an archive, which may have a top folder or lack the split's."""
    parts = folder.split("/")
    found = place(parts) or place(parts[1:])
    if found and not found.level and archive in SPLIT_FOLDERS:
        return found._replace(level=archive)
    return found


def _why_not(member: str) -> str:
    if PurePosixPath(member).suffix.lower() in VIDEO_SUFFIXES:
        return "a video in an archive cannot be decoded; unpack it into a folder"
    return f"lies outside ORBIT's layout ({LAYOUT})"


def frame_number(name: str, video: str) -> int | None:
    """The number at the end of a frame's file name, or None if it is not a frame of this video.

    >>> frame_number("P1--cup--clean---x-00012.jpg", "P1--cup--clean---x")
    12
    """
    path = PurePosixPath(name)
    stem, _, digits = path.stem.rpartition("-")
    if stem != video or path.suffix.lower() not in FRAME_SUFFIXES:
        return None
    return int(digits) if digits.isascii() and digits.isdecimal() else None
