"""Where ORBIT's videos lie: `train/P177/bag/clean/P177--bag--clean--<id>/...-00001.jpg`.

It reads the published dataset as folders, or as the ZIPs in which it is downloaded; the unfiltered
dataset, which has no level of splits; and video files (`<name>.mp4`) instead of folders of frames.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from pipeline.records import Rejected, SourceFile
from pipeline.sources.archives import is_litter, open_tree
from pipeline.sources.folder_listing import entry_span, is_folder
from pipeline.sources.orbit.annotations import ANNOTATIONS_FOLDER
from pipeline.sources.orbit.video import VIDEO_SUFFIXES
from pipeline.sources.spans import FileSpan, unreadable_reason

SPLIT_FOLDERS: Final = ("train", "validation", "test", "other")  # other: unfiltered dataset only
ORBIT_KINDS: Final = ("clean", "clutter", "clutter-pan")
FRAME_SUFFIXES: Final = (".jpg", ".jpeg", ".png")
LAYOUT: Final = "<split>/<user>/<object>/<clean or clutter>/<video>/<video>-NNNNN.jpg"


class VideoKey(NamedTuple):
    """What identifies a video: the parts of its path."""

    level: str
    """The folder of the split; "" in a dataset without that level."""
    user: str
    object: str
    kind: str
    video: str


class ListedVideo(NamedTuple):
    """A video whose frames are not yet listed."""

    key: VideoKey
    path: str
    """The folder of frames or the video file, relative to the root or in the archive."""
    archive: str | None = None
    """The archive with its frames, relative to the root."""
    spans: array[int] | None = None
    """Of frames in an archive: number, offset and length of each, one after the other."""

    @property
    def is_video_file(self) -> bool:
        """Whether it is a video file rather than a folder of frames."""
        return self.archive is None and PurePosixPath(self.path).suffix.lower() in VIDEO_SUFFIXES


@dataclass(slots=True)
class OrbitListing:
    """What lies below a root folder."""

    base: Path
    """The folder that holds the splits."""
    videos: list[ListedVideo] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    files: list[SourceFile] = field(default_factory=list)
    annotations: dict[tuple[str, str], FileSpan] = field(default_factory=dict)
    """Those in archives, by folder of the split and video."""


def parse_video_path(parts: Sequence[str]) -> VideoKey | None:
    """Parse the path of a video; None if it is not where a video should be.

    >>> parse_video_path(("test", "P177", "bag", "clean", "P177--bag--clean--x--y"))
    VideoKey(level='test', user='P177', object='bag', kind='clean', video='P177--bag--clean--x--y')
    """
    level, rest = _split_level(parts)
    match rest:
        case [user, thing, kind, video] if kind in ORBIT_KINDS:
            return VideoKey(level, user, thing, kind, video)
        case [user, thing, video]:  # no level of kinds: the name has it
            names = video.split("--", 3)  # ids may hold "--" and start with "-"
            if len(names) > 3 and names[2] in ORBIT_KINDS:  # noqa: PLR2004
                return VideoKey(level, user, thing, names[2], video)
    return None


def _split_level(parts: Sequence[str]) -> tuple[str, Sequence[str]]:
    return (parts[0], parts[1:]) if parts and parts[0] in SPLIT_FOLDERS else ("", parts)


def _may_hold_videos(parts: Sequence[str]) -> bool:
    """Whether there may be videos deeper in this folder."""
    _, rest = _split_level(parts)
    return len(rest) < 3 or (len(rest) == 3 and rest[2] in ORBIT_KINDS)  # noqa: PLR2004


def list_videos(root: Path, scratch: Path | None = None) -> OrbitListing:
    """List the videos below a folder, or in one archive; frames in folders are not listed yet."""
    if root.is_file():
        listing = OrbitListing(root.parent)
        _list_archive(root, root, scratch, listing)
        return listing
    listing = OrbitListing(_splits_folder(root))
    for entry in _walk_videos(listing.base, ()):
        if isinstance(entry, Rejected):
            listing.rejected.append(entry)
        else:
            key, path = entry
            listing.videos.append(ListedVideo(key, path.relative_to(root).as_posix()))
    for archive in sorted(listing.base.glob("*.zip")):
        _list_archive(archive, root, scratch, listing)
    return listing


def _splits_folder(root: Path) -> Path:
    """The root, or the one folder in it that holds the splits."""
    candidates = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    holding = [c for c in candidates if any((c / split).is_dir() for split in SPLIT_FOLDERS)]
    return holding[0] if holding and (holding[0] == root or len(holding) == 1) else root


def _walk_videos(folder: Path, parts: tuple[str, ...]) -> Iterator[tuple[VideoKey, Path] | Rejected]:
    """Yield the videos in sorted order; what lies elsewhere is rejected, a folder as a whole."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield Rejected("/".join(parts), f"the folder {unreadable_reason(error)}")
        return
    for entry in entries:
        here, path = (*parts, entry.name), Path(entry.path)
        expected = here == (ANNOTATIONS_FOLDER,) or (not parts and path.suffix == ".zip")
        if expected or is_litter(entry.name):
            continue
        raw = path.suffix.lower() in VIDEO_SUFFIXES and isinstance(entry_span(entry, entry.name), FileSpan)
        key = parse_video_path((*parts, path.stem) if raw else here)
        if key and (raw or is_folder(entry)):
            yield key, path
        elif is_folder(entry) and _may_hold_videos(here):
            yield from _walk_videos(path, here)
        else:
            yield Rejected("/".join(here), f"lies outside ORBIT's layout ({LAYOUT})")


def _list_archive(path: Path, root: Path, scratch: Path | None, listing: OrbitListing) -> None:
    """Add the videos and annotations of one archive; frames as numbers, as there are millions."""
    tree = open_tree(path, root, scratch)
    listing.files.extend(tree.files)
    listing.rejected.extend(tree.rejected)
    videos: dict[str, ListedVideo] = {}
    for member, span in tree.members.items():
        folder, _, name = member.rpartition("/")
        if is_litter(member):
            continue
        if name.endswith(".json"):
            level = folder.rpartition("/")[2]
            level = level if level in SPLIT_FOLDERS else ""
            listing.annotations[level, name.removesuffix(".json")] = span
            continue
        if folder not in videos and (key := _archived_video_key(folder, path.stem)):
            videos[folder] = ListedVideo(key, folder, span.file, array("q"))
        number = frame_number(name, videos[folder].key.video) if folder in videos else None
        if number is None:
            listing.rejected.append(Rejected(member, _rejection_reason(member)))
            continue
        spans = videos[folder].spans
        assert spans is not None
        spans.extend((number, span.offset, span.length))
    listing.videos.extend(videos.values())


def _archived_video_key(folder: str, archive: str) -> VideoKey | None:
    """The key of a video in an archive, which may have a top folder or lack that of the split."""
    parts = folder.split("/")
    key = parse_video_path(parts) or parse_video_path(parts[1:])
    if key and not key.level and archive in SPLIT_FOLDERS:
        return key._replace(level=archive)
    return key


def _rejection_reason(member: str) -> str:
    if PurePosixPath(member).suffix.lower() in VIDEO_SUFFIXES:
        return "a video in an archive cannot be decoded; unpack it into a folder"
    return f"lies outside ORBIT's layout ({LAYOUT})"


def frame_number(name: str, video: str) -> int | None:
    """The number at the end of the file name of a frame; None if it is not a frame of this video.

    >>> frame_number("P1--cup--clean---x-00012.jpg", "P1--cup--clean---x")
    12
    """
    path = PurePosixPath(name)
    stem, _, digits = path.stem.rpartition("-")
    if stem != video or path.suffix.lower() not in FRAME_SUFFIXES:
        return None
    return int(digits) if digits.isascii() and digits.isdecimal() else None
