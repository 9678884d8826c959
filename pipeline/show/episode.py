"""Which pictures of an episode are drawn: some of each class, those in H first, the rest counted.

Nothing is decoded here; `episode_sheet` draws what this chooses.
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
from pipeline.show.facts import plural
from pipeline.show.strips import KINDS

COLUMNS: Final = 20  # pictures side by side, support and query together
QUERY_COLUMNS: Final = 6  # of these, if the support would fill them all
LINES: Final = 16  # of pictures, spread over the classes while there are fewer
MOST_LINES: Final = 4  # of one class
FRAMES: Final = 8  # of a video, side by side
VIDEOS: Final = 3  # of one class, below one another


class Tile(NamedTuple):
    """One picture."""

    row: int
    """Of the index."""
    in_h: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Strip:
    """Pictures side by side: some of a class, or frames of one of its videos."""

    tiles: tuple[Tile, ...]
    title: str = ""
    """The video's name."""
    note: str = ""
    """What is not drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lane:
    """One class of an episode: its numbers, and what is drawn of it."""

    label: int
    name: str
    user: str
    split: str
    """Of its support pictures."""
    shots: int
    queries: int
    in_h: int
    support_videos: int
    query_videos: int
    support: tuple[Strip, ...]
    query: tuple[Strip, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeView:
    """An episode as it is shown."""

    plan: EpisodePlan
    dataset: Dataset
    lanes: tuple[Lane, ...]
    h: NDArray[np.int64]
    """The support positions that are in H."""
    support_columns: int
    query_columns: int
    videos: bool

    @property
    def splits(self) -> str:
        """Where the pictures are from, "" if the dataset is not split."""
        support, query = (_split(self.dataset, side.rows) for side in _sides(self.plan))
        if support == query or not query:
            return support
        return f"support from {support or 'no split'}, queries from {query}"


@dataclass(frozen=True, slots=True)
class _Half:
    """The support or the query set, and how much of a class is drawn of it."""

    dataset: Dataset
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    in_h: NDArray[np.bool_]
    clip: int
    columns: int
    lines: int
    videos: bool


def view(dataset: Dataset, plan: EpisodePlan, *, h: int, seed: int) -> EpisodeView:
    """Choose what is drawn of a plan. `seed` is the sampler's, so that H is the loader's."""
    chosen = choose_h(plan, h, seed)
    videos = any(kind in dataset.index.words["kind"] for kind in KINDS)
    columns = (FRAMES, FRAMES) if videos else _columns(plan)
    lines = min(MOST_LINES, max(1, LINES // plan.way))
    in_h = np.zeros(len(plan.support), bool)
    in_h[chosen] = True
    clips = (plan.clip, plan.clip if plan.query_clips == "blocks" else 1)
    marks = (in_h, np.zeros(len(plan.query), bool))
    support, query = (
        _Half(dataset, side.rows, side.labels, mark, clip, width, lines, videos)
        for side, mark, clip, width in zip(_sides(plan), marks, clips, columns, strict=True)
    )
    return EpisodeView(
        plan=plan,
        dataset=dataset,
        lanes=tuple(_lane(support, query, plan, label) for label in range(plan.way)),
        h=chosen,
        support_columns=columns[0],
        query_columns=columns[1],
        videos=videos,
    )


def _sides(plan: EpisodePlan) -> tuple[Side, Side]:
    return plan.support, plan.query


def _columns(plan: EpisodePlan) -> tuple[int, int]:
    """For the class with most pictures; where there are too many, support has the larger part."""
    shots, queries = (
        int(np.bincount(side.labels, minlength=1).max(initial=1)) for side in _sides(plan)
    )
    query = min(queries, max(QUERY_COLUMNS, COLUMNS - shots))
    return min(shots, COLUMNS - query), query


def _lane(support: _Half, query: _Half, plan: EpisodePlan, label: int) -> Lane:
    dataset = support.dataset
    record = dataset.manifest.classes[plan.classes[label]]
    mine = [np.flatnonzero(half.labels == label) for half in (support, query)]
    strips = [
        tuple(_video_strips(half, places)) if half.videos else _stills(half, places)
        for half, places in zip((support, query), mine, strict=True)
    ]
    rows = support.rows[mine[0]]
    return Lane(
        label=label,
        name=record.words or record.name,
        user=dataset.index.text("user", int(rows[0])) if len(rows) else "",
        split=_split(dataset, rows),
        shots=len(mine[0]),
        queries=len(mine[1]),
        in_h=int(support.in_h[mine[0]].sum()),
        support_videos=_videos(support, mine[0]),
        query_videos=_videos(query, mine[1]),
        support=strips[0],
        query=strips[1],
    )


def _videos(half: _Half, places: NDArray[np.int64]) -> int:
    return len(np.unique(half.dataset.index["group"][half.rows[places]])) if half.videos else 0


def _stills(half: _Half, places: NDArray[np.int64]) -> tuple[Strip, ...]:
    """As many as fit; if not all do, the last place says how many more there are."""
    room = half.columns * half.lines
    fitting = room if len(places) <= room else room - 1
    first = places[np.argsort(~half.in_h[places], kind="stable")][:fitting]
    hidden = len(places) - len(first)
    return (Strip(tiles=_tiles(half, first), note=f"+{hidden:,}" if hidden else ""),)


def _video_strips(half: _Half, places: NDArray[np.int64]) -> Iterator[Strip]:
    """A strip for each video, those with frames in H before others, in the plan's order."""
    codes = half.dataset.index["group"][half.rows[places]]
    _, firsts = np.unique(codes, return_index=True)
    order = np.sort(firsts)
    with_h = [bool(half.in_h[places[codes == codes[first]]].any()) for first in order]
    drawn = np.sort(order[np.argsort(~np.array(with_h, bool), kind="stable")][:VIDEOS])
    for first in drawn.tolist():
        frames = places[codes == codes[first]]
        yield _video(half, frames, half.dataset.index.text("group", int(half.rows[places[first]])))
    if len(order) > len(drawn):
        more = len(order) - len(drawn)
        yield Strip(tiles=(), note=f"and {plural(more, 'more video')}")


def _video(half: _Half, frames: NDArray[np.int64], name: str) -> Strip:
    """One clip of a video, one in H if there is any; without clips, frames from its whole length."""
    if half.clip > 1 and len(frames) % half.clip == 0:
        clips = frames.reshape(-1, half.clip)
        chosen = clips[int(half.in_h[clips[:, 0]].argmax())][:FRAMES]
        note = f"1 of {plural(len(clips), 'clip')}" if len(clips) > 1 else ""
    else:
        chosen = _spread(frames, half.in_h[frames])
        note = f"{len(chosen)} of {len(frames):,} frames" if len(chosen) < len(frames) else ""
    return Strip(tiles=_tiles(half, chosen), title=name, note=note)


def _spread(frames: NDArray[np.int64], in_h: NDArray[np.bool_]) -> NDArray[np.int64]:
    """At most FRAMES of them, in order: all in H, or evenly spaced ones where those leave room."""
    if len(frames) <= FRAMES:
        return frames
    inside, others = frames[in_h], frames[~in_h]
    inside = inside[:FRAMES]
    places = np.linspace(0, len(others) - 1, FRAMES - len(inside)).astype(int)
    return np.sort(np.concatenate([inside, others[places]]))


def _tiles(half: _Half, places: NDArray[np.int64]) -> tuple[Tile, ...]:
    rows, marks = half.rows[places].tolist(), half.in_h[places].tolist()
    return tuple(map(Tile, rows, marks))


def _split(dataset: Dataset, rows: NDArray[np.int64]) -> str:
    """The splits of some rows, as words; "" if they have none."""
    words = dataset.index.words["split"]
    found = {words[code] for code in np.unique(dataset.index["split"][rows]).tolist()}
    return " and ".join(split for split in SPLITS if split and split in found)
