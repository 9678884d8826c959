"""The frames of one of ORBIT's videos, listed and not read: files, members of an archive, a video's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.constants import PIXEL_LIMIT
from pipeline.records import Rejected
from pipeline.sources.orbit.layout import Video, frame_number, litter
from pipeline.sources.orbit.video import Probe
from pipeline.sources.spans import Span


class Found(NamedTuple):
    """A frame of a video."""

    number: int
    name: str
    span: Span


def in_folder(root: Path, video: Video) -> Iterator[Found | Rejected]:
    """The frames that are files of a folder."""
    try:
        names = sorted(entry.name for entry in os.scandir(root / video.path))
    except OSError as error:
        yield Rejected(video.path, f"folder cannot be listed: {error.strerror}")
        return
    seen: set[int] = set()
    for name in names:
        path = f"{video.path}/{name}"
        number = frame_number(name, video.place.video)
        if number is None or number in seen:
            if not litter(name):
                why = "no frame of the video" if number is None else "a second such frame"
                yield Rejected(path, f"{why}: {video.place.video}-NNNNN.jpg is expected, once")
            continue
        seen.add(number)
        yield Found(number, path, Span(path))
    if not seen:
        yield Rejected(video.path, "holds no frames")


def in_archive(video: Video) -> Iterator[Found | Rejected]:
    """The frames that are members of an archive."""
    assert video.spans is not None
    assert video.archive is not None
    numbers = video.spans
    seen: set[int] = set()
    for number, offset, length in zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True):
        name = f"{video.path}/{video.place.video}-{number:05d}.jpg"
        if number in seen:
            yield Rejected(name, "a second such frame in the archive")
            continue
        seen.add(number)
        yield Found(number, name, Span(video.archive, offset, length, "zip"))


def in_video(root: Path, video: Video, probe: Probe) -> Iterator[Found | Rejected]:
    """The frames that a video file says it has."""
    facts = probe.facts(root / video.path)
    if isinstance(facts, str):
        yield Rejected(video.path, facts)
        return
    if facts.width * facts.height > PIXEL_LIMIT or not facts.frames:
        size = f"{facts.frames:,} frames of {facts.width:,} x {facts.height:,} pixels"
        yield Rejected(video.path, f"holds {size} (most pixels: {PIXEL_LIMIT:,})")
        return
    if facts.listed > facts.frames:
        yield Rejected(
            video.path, f"is cut off: {facts.frames:,} of its {facts.listed:,} frames are there"
        )
    for number in range(1, facts.frames + 1):
        yield Found(number, f"{video.path}#{number:05d}", Span(video.path, number - 1))
