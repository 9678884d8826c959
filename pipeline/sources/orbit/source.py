"""ORBIT: objects of blind and low-vision people, filmed alone and in clutter; an item is a frame.

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
from pipeline.sources.orbit.annotations import AnnotationFiles, FrameAnnotation
from pipeline.sources.orbit.frames import (
    ListedFrame,
    list_archive_frames,
    list_folder_frames,
    list_video_frames,
)
from pipeline.sources.orbit.layout import LAYOUT, ListedVideo, OrbitListing, VideoKey, list_videos
from pipeline.sources.orbit.official import ORBIT_DOWNLOADS, describe_departures, official_splits
from pipeline.sources.orbit.video import (
    VIDEO_SUFFIXES,
    VideoProbe,
    decode_frames,
    decoder_versions,
    require_decoders,
)
from pipeline.sources.spans import SpanReader

logger = logging.getLogger(__name__)

NOT_ANNOTATED: Final = FrameAnnotation()


@dataclass(frozen=True, kw_only=True)
class OrbitSource(Source):
    """The benchmark (folders or ZIPs of frames), the unfiltered dataset, or videos in the same tree."""

    name: str = "orbit"
    frame_step: int = 1
    """One frame in this many is kept, from the first of a video on."""
    max_frames: int | None = None
    """The most frames kept of a video; None for all."""

    def __post_init__(self) -> None:
        if self.frame_step < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise UsageError(
                f"frame_step and max_frames start at 1, got {self.frame_step} and {self.max_frames}"
            )

    def survey(self) -> Survey:
        """List one class per object of a user; items by user, object, kind, video and frame."""
        if not self.root.exists():
            raise SourceMissing(f"{self.root} is needed and is not there. {ORBIT_DOWNLOADS}")
        listing = list_videos(self.root, self.scratch)
        if not listing.videos:
            raise SourceMissing(
                f"{self.root} holds no video where ORBIT has them ({LAYOUT}), "
                f"{len(listing.rejected):,} other files or folders. {ORBIT_DOWNLOADS}"
            )
        if any(video.is_video_file for video in listing.videos):
            require_decoders()
        official = official_splits()
        split_of = {user: split for split, facts in official.items() for user in facts.users}
        videos = sorted(
            ((_split_of_video(video, split_of), video) for video in listing.videos), key=_listing_order
        )
        for warning in describe_departures(videos, official):
            logger.warning("%s: %s", self.root, warning)
        names = dict.fromkeys((split, v.key.user, v.key.object) for split, v in videos)
        classes = tuple(ClassRecord(name=f"{u}/{o}", split=s, superclass=u) for s, u, o in names)
        ids = {name: position for position, name in enumerate(names)}
        items = self._items(videos, ids, listing)
        return Survey(classes=classes, items=items, files=tuple(listing.files), ordered=True)

    def _items(
        self,
        videos: Sequence[tuple[Split, ListedVideo]],
        ids: Mapping[tuple[Split, str, str], int],
        listing: OrbitListing,
    ) -> Iterator[Item | Rejected]:
        yield from listing.rejected
        with SpanReader(self.root, self.scratch) as reader, closing(VideoProbe()) as probe:
            annotations = AnnotationFiles(listing.base, listing.annotations, reader)
            for (split, key), copies in groupby(videos, lambda pair: (pair[0], pair[1].key)):
                video, *others = (video for _, video in copies)
                for other in others:
                    where = other.path if other.archive is None else f"{other.archive}:{other.path}"
                    yield Rejected(where, f"the same video as {video.archive or video.path}")
                notes, problems = annotations.read_video(key.level or split, key.video)
                for problem in problems:
                    yield Rejected(f"{key.video}.json", problem)
                class_id = ids[split, key.user, key.object]
                for frame in self._select_frames(self._frames(video, probe)):
                    if isinstance(frame, Rejected):
                        yield frame
                        continue
                    note = notes.get(f"{key.video}-{frame.number:05d}.jpg", NOT_ANNOTATED)
                    yield _item(frame, class_id, split, key, note)

    def _select_frames(self, frames: Iterator[ListedFrame | Rejected]) -> Iterator[ListedFrame | Rejected]:
        """The rejected frames, then those that the options ask for."""
        kept: list[ListedFrame] = []
        for frame in frames:
            if isinstance(frame, Rejected):
                yield frame
            elif (frame.number - 1) % self.frame_step == 0:
                kept.append(frame)
        yield from islice(sorted(kept), self.max_frames)

    def _frames(self, video: ListedVideo, probe: VideoProbe) -> Iterator[ListedFrame | Rejected]:
        if video.is_video_file:
            return list_video_frames(self.root, video, probe)
        if video.archive is not None:
            return list_archive_frames(video)
        return list_folder_frames(self.root, video)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Yield frames in files as bytes; consecutive items of a video file are decoded in one pass."""
        for file, run in groupby(items, key=_video_file):
            if not file:
                yield from super().pictures(list(run))
                continue
            for part in _ascending_runs(list(run)):
                decoded = decode_frames(self.root / file, [item.frame for item in part])
                for item, (_, pixels) in zip(part, decoded, strict=True):
                    yield Rejected(item.name, pixels) if isinstance(pixels, str) else pixels

    def libraries(self, items: Sequence[Item]) -> dict[str, str]:
        """The video decoders, where a video is decoded: another version may round differently."""
        return decoder_versions() if any(map(_video_file, items)) else {}


def _item(frame: ListedFrame, class_id: int, split: Split, key: VideoKey, note: FrameAnnotation) -> Item:
    return Item(
        frame.name,
        class_id,
        split,
        *frame.span,
        group=key.video,
        user=key.user,
        kind=key.kind,
        frame=frame.number,
        quality=note.quality,
        box=note.box,
    )


def _video_file(item: Item) -> str:
    return item.file if PurePosixPath(item.file).suffix.lower() in VIDEO_SUFFIXES else ""


def _ascending_runs(items: list[Item]) -> Iterator[list[Item]]:
    """Cut the items where the frame number does not rise: a decoder only reads forwards."""
    start = 0
    for end in range(1, len(items) + 1):
        if end == len(items) or items[end].frame <= items[end - 1].frame:
            yield items[start:end]
            start = end


def _split_of_video(video: ListedVideo, split_of: Mapping[str, Split]) -> Split:
    """The folder of the split; in a dataset without one, the benchmark's split of the user."""
    level = video.key.level
    return level if level in SPLITS and level else split_of.get(video.key.user, "")


def _listing_order(pair: tuple[Split, ListedVideo]) -> tuple[object, ...]:
    """Sorts the videos; of a video that is there twice, the one in frames comes first."""
    split, video = pair
    return SPLITS.index(split), video.key, video.is_video_file, video.archive or "", video.path
