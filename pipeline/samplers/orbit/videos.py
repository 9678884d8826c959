"""The users, objects, support videos and query videos of one split of ORBIT."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.constants import QUALITY_ISSUES
from pipeline.errors import UsageError, first_few
from pipeline.index import Dataset, SampleIndex
from pipeline.samplers.orbit.clips import Ints, enumerate_counts
from pipeline.samplers.orbit.rules import LEAST_WAY, OrbitRules, SideRules

logger = logging.getLogger(__name__)

SUPPORT_SIDE: Final = 0
QUERY_SIDE: Final = 1
MODE_KINDS: Final = {"clu-ve": ("clean", "clutter"), "cle-ve": ("clean",)}

Mask: TypeAlias = "NDArray[np.bool_]"


class OrbitExclusion(NamedTuple):
    """A video, object or user that the rules leave out, and why."""

    what: str
    """video, object or user."""
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrbitVideos:
    """The videos that may be drawn, by object, support before query, each side in order of name."""

    rows: Ints
    """Rows of the index, by video and in frame order."""
    starts: Ints
    """Video v's rows are rows[starts[v]] up to rows[starts[v + 1]]."""
    classes: Ints
    """The class of each object, ascending."""
    firsts: Ints
    """At 2 o the first video of object o's support, at 2 o + 1 of its query; at the end, the number of videos."""
    users: tuple[str, ...]
    objects: tuple[Ints, ...]
    """The objects of each user."""
    dropped: tuple[OrbitExclusion, ...]

    def of(self, objects: Ints, side: int) -> tuple[Ints, Ints]:
        """The first video of each object's side, and the number of its videos."""
        at = 2 * objects + side
        return self.firsts[at], self.firsts[at + 1] - self.firsts[at]


def list_videos(dataset: Dataset, split: str, rules: OrbitRules) -> OrbitVideos:
    """The videos of a split under these rules. Raises UsageError if a task could not be drawn."""
    videos = _split_videos(dataset, split, rules)
    keep_row = _rows_passing_filter(dataset.index, videos, rules)
    keep_video, short = _long_enough(dataset.index, videos, keep_row, rules)
    counts = np.zeros((len(dataset.manifest.classes), 2), np.int64)
    np.add.at(counts, (videos.classes[keep_video], videos.sides[keep_video]), 1)
    fit, unfit = _usable_classes(dataset, split, counts, rules)
    dropped = (*unfit, *short)
    where = f"{dataset.manifest.name}, split {split}, {rules.mode}"
    if unfit and (rules.unfit == "raise" or not fit.any()):
        advice = "" if rules.unfit == "drop" else ". unfit='drop' leaves them out"
        raise UsageError(f"{where}: no task can be drawn of {_first_exclusions(dropped)}{advice}")
    if dropped:
        logger.warning("%s: left out: %s", where, _first_exclusions(dropped))
    keep_video &= fit[videos.classes]
    keep_row &= np.repeat(keep_video, videos.frames)
    frames = np.add.reduceat(keep_row, videos.begins, dtype=np.int64)[keep_video]
    kept = (videos.classes[keep_video], videos.sides[keep_video])
    return _orbit_videos(dataset, kept, videos.rows[keep_row], frames, dropped)


@dataclass(frozen=True, slots=True)
class _SplitVideos:
    """Videos by object, side and name, before anything is left out."""

    rows: Ints
    frames: Ints
    """One entry for each video, as in the next three."""
    classes: Ints
    sides: Ints
    groups: Ints
    """Codes into the index's words."""

    @property
    def begins(self) -> Ints:
        return np.cumsum(self.frames) - self.frames


def _split_videos(dataset: Dataset, split: str, rules: OrbitRules) -> _SplitVideos:
    """The videos of a split that the mode uses, whatever the order of the rows."""
    index, records = dataset.index, dataset.manifest.classes
    in_split = np.array([record.split == split and record.superclass != "" for record in records])
    if not in_split.any():
        splits = sorted({record.split for record in records if record.superclass})
        raise UsageError(
            f"{dataset.manifest.name} has no users in split {split}: Orbit needs a dataset built from "
            f"ORBIT with that split; this one has users in {', '.join(splits) or 'no split'}"
        )
    kind = np.full(len(index), -1)
    for code, word in enumerate(MODE_KINDS[rules.mode]):
        kind[index.is_word("kind", word)] = code
    rows = np.flatnonzero(in_split[index["class_id"]] & (kind >= 0))
    if not len(rows):
        raise UsageError(
            f"{dataset.manifest.name} has no {' or '.join(MODE_KINDS[rules.mode])} video in split {split}"
        )
    rank = np.empty(len(index.words["group"]), np.int64)
    rank[sorted(range(len(rank)), key=index.words["group"].__getitem__)] = np.arange(len(rank))
    keys = [index["class_id"][rows], kind[rows], rank[index["group"][rows]]]
    order = np.lexsort([index["frame"][rows], *reversed(keys)])
    rows, keys = rows[order], [key[order] for key in keys]
    begins = np.flatnonzero(np.any([np.diff(key, prepend=-1) != 0 for key in keys], axis=0))
    classes, sides = keys[0][begins].astype(np.int64), keys[1][begins]
    if rules.mode == "cle-ve":
        sides = _cle_sides(classes, rules.cle_support_videos)
    groups = index["group"][rows[begins]].astype(np.int64)
    return _SplitVideos(rows, np.diff(begins, append=len(rows)), classes, sides, groups)


def _cle_sides(classes: Ints, most: int) -> Ints:
    """Sides of clean videos: the first of an object are support, the others query, which has one at least."""
    _, counts = np.unique(classes, return_counts=True)
    which, number = enumerate_counts(counts)
    return np.where(number < np.minimum(most, counts - 1)[which], SUPPORT_SIDE, QUERY_SIDE)


def _rows_passing_filter(index: SampleIndex, videos: _SplitVideos, rules: OrbitRules) -> Mask:
    """Which rows meet the filter of their video's side."""
    side = np.repeat(videos.sides, videos.frames)
    keep = np.ones(len(videos.rows), np.bool_)
    for number, draw in enumerate((rules.support, rules.query)):
        own = side == number
        if draw.criteria:
            keep[own] = _meets_filter(index, videos.rows[own], draw, rules)
    return keep


def _meets_filter(index: SampleIndex, rows: Ints, draw: SideRules, rules: OrbitRules) -> Mask:
    if QUALITY_ISSUES[0] not in index.columns:
        raise UsageError(
            f"a filter by {', '.join(draw.filter)} needs ORBIT's annotations and the index has none; "
            "build again with the folder annotations beside the splits, or do without: "
            "support_filter=(), query_filter=()"
        )
    values = [(name.removeprefix("no_"), name in QUALITY_ISSUES) for name in draw.criteria]
    met = [index[name][rows] == value for name, value in values]
    return np.asarray(np.any(met, axis=0) if rules.filter_match == "any" else np.all(met, axis=0))


def _long_enough(
    index: SampleIndex, videos: _SplitVideos, keep_row: Mask, rules: OrbitRules
) -> tuple[Mask, list[OrbitExclusion]]:
    """Which videos have enough frames after the filter, and those that have not."""
    draws = (rules.support, rules.query)
    left = np.add.reduceat(keep_row, videos.begins, dtype=np.int64)
    keep = left >= np.array([draw.min_frames for draw in draws])[videos.sides]
    dropped = []
    for video in np.flatnonzero(~keep):
        draw = draws[videos.sides[video]]
        met = f"meet {', '.join(draw.filter)}" if draw.filter else "are there"
        reason = f"{left[video]:,} of {videos.frames[video]:,} frames {met}, {draw.min_frames} needed"
        dropped.append(OrbitExclusion("video", index.words["group"][videos.groups[video]], reason))
    return keep, dropped


def _usable_classes(
    dataset: Dataset, split: str, videos: Ints, rules: OrbitRules
) -> tuple[Mask, list[OrbitExclusion]]:
    """Which classes have videos on both sides and enough others of their user; and those that have not."""
    fit = np.asarray(videos.min(axis=1) > 0)
    unfit: list[OrbitExclusion] = []
    pools: dict[str, list[int]] = {}
    for number, record in enumerate(dataset.manifest.classes):
        if record.split != split or not record.superclass:
            continue
        user = record.superclass if rules.centre == "user" else "everyone"
        pools.setdefault(user, []).append(number)
        if not fit[number]:
            support, query = videos[number]
            reason = f"{support} support and {query} query videos, one of each needed"
            unfit.append(OrbitExclusion("object", record.name, reason))
    least = LEAST_WAY if rules.way == "random" else 1
    for user, numbers in pools.items():
        usable = int(fit[numbers].sum())
        if usable < least:
            reason = f"{usable} of {len(numbers)} objects can be used, {least} needed"
            unfit.append(OrbitExclusion("user", user, reason))
            fit[numbers] = False
    return fit, unfit


def _first_exclusions(dropped: Sequence[OrbitExclusion]) -> str:
    """How many users, objects and videos are left out, and the first of each."""
    parts = []
    for what in ("user", "object", "video"):
        names = [f"{d.name} ({d.reason})" for d in dropped if d.what == what]
        if names:
            parts.append(f"{len(names):,} {what}(s): {first_few(names)}")
    return "; ".join(parts)


def _orbit_videos(
    dataset: Dataset, kept: tuple[Ints, Ints], rows: Ints, frames: Ints, dropped: tuple[OrbitExclusion, ...]
) -> OrbitVideos:
    """The table of the videos kept, from their class and side, their rows, and the number of rows of each."""
    records = dataset.manifest.classes
    classes, position = np.unique(kept[0], return_inverse=True)
    user_of = np.array([records[class_id].superclass for class_id in classes])
    users = sorted(set(user_of.tolist()))
    return OrbitVideos(
        rows=rows,
        starts=np.concatenate([[0], np.cumsum(frames)]),
        classes=classes,
        firsts=np.searchsorted(2 * position + kept[1], np.arange(2 * len(classes) + 1)),
        users=tuple(users),
        objects=tuple(np.flatnonzero(user_of == user) for user in users),
        dropped=dropped,
    )
