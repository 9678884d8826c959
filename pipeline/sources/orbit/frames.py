"""Lists the frames of a video of ORBIT: image files, members of an archive, or frames of a video file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.constants import PIXEL_LIMIT
from pipeline.records import Rejected
from pipeline.sources.archives import is_litter
from pipeline.sources.folder_listing import list_folder
from pipeline.sources.orbit.layout import ListedVideo, frame_number
from pipeline.sources.orbit.video import VideoProbe
from pipeline.sources.spans import FileSpan, span_file, unreadable_reason


class ListedFrame(NamedTuple):
    """A frame of a video, and where it lies."""

    number: int
    name: str
    span: FileSpan


def list_folder_frames(root: Path, video: ListedVideo) -> Iterator[ListedFrame | Rejected]:
    """List the frames that are files in a folder."""
    try:
        entries = list(list_folder(root / video.path, video.path))
    except OSError as error:
        yield Rejected(video.path, f"the folder {unreadable_reason(error)}")
        return
    seen: set[int] = set()
    for entry, span in entries:
        name, path = entry.name, f"{video.path}/{entry.name}"
        number = frame_number(name, video.key.video)
        if number is None or number in seen:
            if not is_litter(name):
                why = "no frame of the video" if number is None else "a second such frame"
                yield Rejected(path, f"{why}: {video.key.video}-NNNNN.jpg is expected, once")
            continue
        seen.add(number)
        yield Rejected(path, span) if isinstance(span, str) else ListedFrame(number, path, span)
    if not seen:
        yield Rejected(video.path, "holds no frames")


def list_archive_frames(video: ListedVideo) -> Iterator[ListedFrame | Rejected]:
    """List the frames that are members of an archive."""
    assert video.spans is not None
    assert video.archive is not None
    numbers = video.spans
    seen: set[int] = set()
    for number, offset, length in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        name = f"{video.path}/{video.key.video}-{number:05d}.jpg"
        if number in seen:
            yield Rejected(name, "a second such frame in the archive")
            continue
        seen.add(number)
        yield ListedFrame(number, name, FileSpan(video.archive, offset, length, "zip"))


def list_video_frames(root: Path, video: ListedVideo, probe: VideoProbe) -> Iterator[ListedFrame | Rejected]:
    """List the frames that a video file says it has."""
    facts = probe.read_facts(root / video.path)
    if isinstance(facts, str):
        yield Rejected(video.path, facts)
        return
    if facts.width * facts.height > PIXEL_LIMIT or not facts.frames:
        size = f"{facts.frames:,} frames of {facts.width:,} x {facts.height:,} pixels"
        yield Rejected(video.path, f"holds {size} (most pixels: {PIXEL_LIMIT:,})")
        return
    if facts.listed > facts.frames:
        yield Rejected(video.path, f"is cut off: {facts.frames:,} of its {facts.listed:,} frames are there")
    file = span_file(video.path)
    for number in range(1, facts.frames + 1):
        yield ListedFrame(number, f"{video.path}#{number:05d}", FileSpan(file, number - 1))
