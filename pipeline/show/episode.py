"""The images of an episode that are drawn: some of each class, those in H first, the rest counted.

Nothing is decoded here; `episode_sheet` draws what is chosen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan, Side, choose_h
from pipeline.index import Dataset
from pipeline.records import SPLITS
from pipeline.show.facts import plural, printable
from pipeline.show.strips import has_user_videos

SHEET_COLUMNS: Final = 20  # images side by side, support and query together
QUERY_COLUMNS: Final = 6  # of these, if the support would fill them all
SHEET_LINES: Final = 16  # of images, shared by the classes; one each if there are more classes
CLASS_LINES: Final = 4  # of one class
VIDEO_FRAMES: Final = 8  # of one video, side by side
CLASS_VIDEOS: Final = 3  # of one class, one below the other


class ImageTile(NamedTuple):
    """One image of a strip."""

    row: int
    """Of the index."""
    in_h: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TileStrip:
    """Images side by side: some of a class, or frames of one of its videos."""

    tiles: tuple[ImageTile, ...]
    title: str = ""
    """The video's name."""
    note: str = ""
    """How many are not drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassLane:
    """One class of an episode: its numbers, and the images that are drawn."""

    label: int
    name: str
    user: str
    split: str
    """Of its support images."""
    shots: int
    queries: int
    in_h: int
    support_videos: int
    query_videos: int
    support: tuple[TileStrip, ...]
    query: tuple[TileStrip, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeView:
    """An episode as it is shown."""

    plan: EpisodePlan
    dataset: Dataset
    lanes: tuple[ClassLane, ...]
    h: NDArray[np.int64]
    """The support positions that are in H."""
    columns: tuple[int, int]
    """Images side by side, of support and query."""
    videos: bool

    @property
    def splits(self) -> str:
        """The splits of the images, "" if the dataset is not split."""
        support, query = (_split_names(self.dataset, side.rows) for side in _sides(self.plan))
        if support == query or not query:
            return support
        return f"support from {support or 'no split'}, queries from {query}"


@dataclass(frozen=True, slots=True)
class _SideView:
    """The support or the query set, and how many images of a class are drawn."""

    dataset: Dataset
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    in_h: NDArray[np.bool_]
    clip: int
    columns: int
    lines: int
    videos: bool


def view_episode(dataset: Dataset, plan: EpisodePlan, *, h: int, seed: int) -> EpisodeView:
    """Choose the images of a plan to draw. With the sampler's `seed`, H is the same as the loader's."""
    chosen = choose_h(plan, h, seed)
    videos = has_user_videos(dataset)
    columns = (VIDEO_FRAMES, VIDEO_FRAMES) if videos else _count_columns(plan)
    lines = min(CLASS_LINES, max(1, SHEET_LINES // plan.way))
    in_h = np.zeros(len(plan.support), bool)
    in_h[chosen] = True
    clips = (plan.clip, plan.clip if plan.query_clips == "blocks" else 1)
    marks = (in_h, np.zeros(len(plan.query), bool))
    support, query = (
        _SideView(dataset, side.rows, side.labels, mark, clip, width, lines, videos)
        for side, mark, clip, width in zip(_sides(plan), marks, clips, columns, strict=True)
    )
    return EpisodeView(
        plan=plan,
        dataset=dataset,
        lanes=tuple(_class_lane(support, query, plan, label) for label in range(plan.way)),
        h=chosen,
        columns=columns,
        videos=videos,
    )


def _sides(plan: EpisodePlan) -> tuple[Side, Side]:
    return plan.support, plan.query


def _count_columns(plan: EpisodePlan) -> tuple[int, int]:
    """Columns for support and query, by the largest class; support takes most of a full sheet."""
    shots, queries = (int(np.bincount(side.labels, minlength=1).max(initial=1)) for side in _sides(plan))
    query = min(queries, max(QUERY_COLUMNS, SHEET_COLUMNS - shots))
    return min(shots, SHEET_COLUMNS - query), query


def _class_lane(support: _SideView, query: _SideView, plan: EpisodePlan, label: int) -> ClassLane:
    dataset = support.dataset
    record = dataset.manifest.classes[plan.classes[label]]
    positions = [np.flatnonzero(side.labels == label) for side in (support, query)]
    strips = [
        tuple(_video_strips(side, places)) if side.videos else _still_strips(side, places)
        for side, places in zip((support, query), positions, strict=True)
    ]
    rows = support.rows[positions[0]]
    return ClassLane(
        label=label,
        name=printable(record.words or record.name),
        user=printable(dataset.index.text("user", int(rows[0]))) if len(rows) else "",
        split=_split_names(dataset, rows),
        shots=len(positions[0]),
        queries=len(positions[1]),
        in_h=int(support.in_h[positions[0]].sum()),
        support_videos=_count_videos(support, positions[0]),
        query_videos=_count_videos(query, positions[1]),
        support=strips[0],
        query=strips[1],
    )


def _count_videos(side: _SideView, places: NDArray[np.int64]) -> int:
    return len(np.unique(side.dataset.index["group"][side.rows[places]])) if side.videos else 0


def _still_strips(side: _SideView, places: NDArray[np.int64]) -> tuple[TileStrip, ...]:
    """Choose as many images as fit; if some do not, the last place says how many more there are."""
    room = side.columns * side.lines
    fitting = room if len(places) <= room else room - 1
    first = places[np.argsort(~side.in_h[places], kind="stable")][:fitting]
    hidden = len(places) - len(first)
    return (TileStrip(tiles=_tiles(side, first), note=f"+{hidden:,}" if hidden else ""),)


def _video_strips(side: _SideView, places: NDArray[np.int64]) -> Iterator[TileStrip]:
    """Strips of CLASS_VIDEOS videos in the plan's order; videos with frames in H are preferred."""
    codes = side.dataset.index["group"][side.rows[places]]
    _, firsts = np.unique(codes, return_index=True)
    order = np.sort(firsts)
    with_h = [bool(side.in_h[places[codes == codes[first]]].any()) for first in order]
    drawn = np.sort(order[np.argsort(~np.array(with_h, bool), kind="stable")][:CLASS_VIDEOS])
    for first in drawn.tolist():
        frames = places[codes == codes[first]]
        name = side.dataset.index.text("group", int(side.rows[places[first]]))
        yield _video_strip(side, frames, printable(name))
    if len(order) > len(drawn):
        more = len(order) - len(drawn)
        yield TileStrip(tiles=(), note=f"and {plural(more, 'more video')}")


def _video_strip(side: _SideView, frames: NDArray[np.int64], name: str) -> TileStrip:
    """Choose one clip of a video, in H if any is; without clips, frames from its whole length."""
    if side.clip > 1 and len(frames) % side.clip == 0:
        clips = frames.reshape(-1, side.clip)
        chosen = clips[int(side.in_h[clips[:, 0]].argmax())][:VIDEO_FRAMES]
        note = f"1 of {plural(len(clips), 'clip')}" if len(clips) > 1 else ""
    else:
        chosen = _choose_frames(frames, side.in_h[frames])
        note = f"{len(chosen)} of {len(frames):,} frames" if len(chosen) < len(frames) else ""
    return TileStrip(tiles=_tiles(side, chosen), title=name, note=note)


def _choose_frames(frames: NDArray[np.int64], in_h: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Choose VIDEO_FRAMES in order: those in H, then evenly spaced ones where these leave room."""
    if len(frames) <= VIDEO_FRAMES:
        return frames
    inside, others = frames[in_h], frames[~in_h]
    inside = inside[:VIDEO_FRAMES]
    places = np.linspace(0, len(others) - 1, VIDEO_FRAMES - len(inside)).astype(int)
    return np.sort(np.concatenate([inside, others[places]]))


def _tiles(side: _SideView, places: NDArray[np.int64]) -> tuple[ImageTile, ...]:
    rows, marks = side.rows[places].tolist(), side.in_h[places].tolist()
    return tuple(map(ImageTile, rows, marks))


def _split_names(dataset: Dataset, rows: NDArray[np.int64]) -> str:
    """The names of the splits of some rows; "" if they have none."""
    words = dataset.index.words["split"]
    names = {words[code] for code in np.unique(dataset.index["split"][rows]).tolist()}
    return " and ".join(split for split in SPLITS if split and split in names)
