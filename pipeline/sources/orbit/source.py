"""ORBIT: objects of blind and low-vision people, filmed alone and in clutter, by the frame.

Massiceti et al., ORBIT, ICCV 2021 (arXiv:2104.03841). A class is one object of one user.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import PurePosixPath
from typing import Final

from pipeline.errors import SourceMissing, UsageError
from pipeline.records import SPLITS, ClassRecord, Item, Pixels, Rejected, Split, Survey
from pipeline.sources.base import Source
from pipeline.sources.orbit.annotations import Annotation, Annotations
from pipeline.sources.orbit.frames import Found, in_archive, in_folder, in_video
from pipeline.sources.orbit.layout import LAYOUT, Listing, Place, Video, list_videos
from pipeline.sources.orbit.official import NEEDED, departures, official_splits
from pipeline.sources.orbit.video import VIDEO_SUFFIXES, Probe, decoders, frames, require
from pipeline.sources.spans import SpanReader

logger = logging.getLogger(__name__)

UNKNOWN: Final = Annotation()


@dataclass(frozen=True, kw_only=True)
class OrbitSource(Source):
    """The benchmark (folders or ZIPs of frames), the unfiltered set, or videos in the same tree."""

    name: str = "orbit"
    frame_step: int = 1
    """Every how many-th frame of a video is kept, from the first on."""
    max_frames: int | None = None
    """Most frames kept of a video; None for all."""

    def __post_init__(self) -> None:
        if self.frame_step < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise UsageError(
                f"frame_step and max_frames start at 1, got {self.frame_step} and {self.max_frames}"
            )

    def survey(self) -> Survey:
        """One class per object of a user; items by user, object, kind, video and frame."""
        if not self.root.exists():
            raise SourceMissing(f"{self.root} is needed and is not there. {NEEDED}")
        listing = list_videos(self.root, self.scratch)
        if not listing.videos:
            raise SourceMissing(
                f"{self.root} holds no video where ORBIT has them ({LAYOUT}), "
                f"{len(listing.rejected):,} other files or folders. {NEEDED}"
            )
        if any(video.raw for video in listing.videos):
            require()
        official = official_splits()
        split_of = {user: split for split, facts in official.items() for user in facts.users}
        videos = sorted(
            ((_split(video, split_of), video) for video in listing.videos), key=_position
        )
        for warning in departures(videos, official):
            logger.warning("%s: %s", self.root, warning)
        names = dict.fromkeys((split, v.place.user, v.place.object) for split, v in videos)
        classes = tuple(ClassRecord(name=f"{u}/{o}", split=s, superclass=u) for s, u, o in names)
        ids = {name: position for position, name in enumerate(names)}
        items = self._items(videos, ids, listing)
        return Survey(classes=classes, items=items, files=tuple(listing.files), ordered=True)

    def _items(
        self,
        videos: Sequence[tuple[Split, Video]],
        ids: Mapping[tuple[Split, str, str], int],
        listing: Listing,
    ) -> Iterator[Item | Rejected]:
        yield from listing.rejected
        with SpanReader(self.root, self.scratch) as reader, closing(Probe()) as probe:
            annotations = Annotations(listing.base, listing.annotations, reader)
            for (split, place), same in groupby(videos, lambda pair: (pair[0], pair[1].place)):
                video, *others = (video for _, video in same)
                for other in others:
                    where = other.path if other.archive is None else f"{other.archive}:{other.path}"
                    yield Rejected(where, f"the same video as {video.archive or video.path}")
                notes, problems = annotations.of(place.level or split, place.video)
                for problem in problems:
                    yield Rejected(f"{place.video}.json", problem)
                class_id = ids[split, place.user, place.object]
                for found in self._kept(self._frames(video, probe)):
                    if isinstance(found, Rejected):
                        yield found
                        continue
                    note = notes.get(f"{place.video}-{found.number:05d}.jpg", UNKNOWN)
                    yield _item(found, class_id, split, place, note)

    def _kept(self, found: Iterator[Found | Rejected]) -> Iterator[Found | Rejected]:
        """What is bad, then the frames that the options ask for."""
        every: list[Found] = []
        for one in found:
            if isinstance(one, Rejected):
                yield one
            elif (one.number - 1) % self.frame_step == 0:
                every.append(one)
        yield from islice(sorted(every), self.max_frames)

    def _frames(self, video: Video, probe: Probe) -> Iterator[Found | Rejected]:
        if video.raw:
            return in_video(self.root, video, probe)
        return in_folder(self.root, video) if video.archive is None else in_archive(video)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Frames in files as bytes; consecutive items of one video from one pass over it."""
        for file, run in groupby(items, key=_video_file):
            if not file:
                yield from super().pictures(list(run))
                continue
            for part in _ascending(list(run)):
                decoded = frames(self.root / file, [item.frame for item in part])
                for item, (_, pixels) in zip(part, decoded, strict=True):
                    yield Rejected(item.name, pixels) if isinstance(pixels, str) else pixels

    def libraries(self, items: Sequence[Item]) -> dict[str, str]:
        """The video decoders, where a video was decoded: another version may round another way."""
        return decoders() if any(map(_video_file, items)) else {}


def _item(found: Found, class_id: int, split: Split, place: Place, note: Annotation) -> Item:
    return Item(
        found.name,
        class_id,
        split,
        *found.span,
        group=place.video,
        user=place.user,
        kind=place.kind,
        frame=found.number,
        quality=note.quality,
        box=note.box,
    )


def _video_file(item: Item) -> str:
    return item.file if PurePosixPath(item.file).suffix.lower() in VIDEO_SUFFIXES else ""


def _ascending(items: list[Item]) -> Iterator[list[Item]]:
    """Cut where the frame number does not rise: a decoder reads forwards."""
    start = 0
    for end in range(1, len(items) + 1):
        if end == len(items) or items[end].frame <= items[end - 1].frame:
            yield items[start:end]
            start = end


def _split(video: Video, split_of: Mapping[str, Split]) -> Split:
    """The split's folder; in a set without one, the benchmark's split of the user."""
    level = video.place.level
    return level if level in SPLITS and level else split_of.get(video.place.user, "")


def _position(pair: tuple[Split, Video]) -> tuple[object, ...]:
    """The place of a video in the listing; of a video that is there twice, frames come first."""
    split, video = pair
    return SPLITS.index(split), video.place, video.raw, video.archive or "", video.path
