"""The videos of one split of ORBIT, as tasks see them: users, objects, support and query videos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.constants import QUALITY
from pipeline.errors import UsageError
from pipeline.index import Dataset, Index
from pipeline.samplers.orbit.clips import Ints, ramp
from pipeline.samplers.orbit.rules import LEAST_WAY, Draw, Rules

logger = logging.getLogger(__name__)

SUPPORT: Final = 0
QUERY: Final = 1
KINDS: Final = {"clu-ve": ("clean", "clutter"), "cle-ve": ("clean",)}
NAMED: Final = 3  # examples in a message

Mask: TypeAlias = "NDArray[np.bool_]"


class Dropped(NamedTuple):
    """What the rules leave out, and why."""

    what: str
    """video, object or user."""
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Videos:
    """What may be drawn. Videos lie by object, support before query, each side in order of name."""

    rows: Ints
    """Rows of the index, by video and in frame order."""
    starts: Ints
    """Video v's rows are rows[starts[v]] up to rows[starts[v + 1]]."""
    classes: Ints
    """The class of each object, ascending."""
    firsts: Ints
    """The first video of object o's support at 2 o, of its query at 2 o + 1; at the end, how many."""
    users: tuple[str, ...]
    objects: tuple[Ints, ...]
    """The objects of each user."""
    dropped: tuple[Dropped, ...]

    def of(self, objects: Ints, side: int) -> tuple[Ints, Ints]:
        """The first video of each object's side, and how many there are."""
        place = 2 * objects + side
        return self.firsts[place], self.firsts[place + 1] - self.firsts[place]


def list_videos(dataset: Dataset, split: str, rules: Rules) -> Videos:
    """The videos of a split under these rules. UsageError where a task could not be drawn."""
    found = _find(dataset, split, rules)
    keep_row = _filtered(dataset.index, found, rules)
    keep_video, short = _long_enough(dataset.index, found, keep_row, rules)
    counts = np.zeros((len(dataset.manifest.classes), 2), np.int64)
    np.add.at(counts, (found.classes[keep_video], found.sides[keep_video]), 1)
    fit, unfit = _fit(dataset, split, counts, rules)
    dropped = (*unfit, *short)
    where = f"{dataset.manifest.name}, split {split}, {rules.mode}"
    if unfit and (rules.unfit == "raise" or not fit.any()):
        advice = "" if rules.unfit == "drop" else ". unfit='drop' leaves them out"
        raise UsageError(f"{where}: no task can be drawn of {_examples(dropped)}{advice}")
    if dropped:
        logger.warning("%s: left out: %s", where, _examples(dropped))
    keep_video &= fit[found.classes]
    keep_row &= np.repeat(keep_video, found.frames)
    frames = np.add.reduceat(keep_row, found.begins, dtype=np.int64)[keep_video]
    kept = (found.classes[keep_video], found.sides[keep_video])
    return _videos(dataset, kept, found.rows[keep_row], frames, dropped)


@dataclass(frozen=True, slots=True)
class _Found:
    """Videos by object, side and name, before anything is left out."""

    rows: Ints
    frames: Ints
    """Of each video; so are the next three."""
    classes: Ints
    sides: Ints
    groups: Ints
    """Codes into the index's words."""

    @property
    def begins(self) -> Ints:
        return np.cumsum(self.frames) - self.frames


def _find(dataset: Dataset, split: str, rules: Rules) -> _Found:
    """The videos of a split and of the mode's kinds, whatever the order of the rows."""
    index, records = dataset.index, dataset.manifest.classes
    wanted = np.array([record.split == split and record.superclass != "" for record in records])
    if not wanted.any():
        splits = sorted({record.split for record in records if record.superclass})
        raise UsageError(
            f"{dataset.manifest.name} has no users in split {split}: Orbit needs a dataset built from "
            f"ORBIT with that split; this one has users in {', '.join(splits) or 'no split'}"
        )
    kind = np.full(len(index), -1)
    for code, word in enumerate(KINDS[rules.mode]):
        kind[index.is_word("kind", word)] = code
    rows = np.flatnonzero(wanted[index["class_id"]] & (kind >= 0))
    if not len(rows):
        raise UsageError(
            f"{dataset.manifest.name} has no {' or '.join(KINDS[rules.mode])} video in split {split}"
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
    return _Found(rows, np.diff(begins, append=len(rows)), classes, sides, groups)


def _cle_sides(classes: Ints, most: int) -> Ints:
    """The first videos of an object are support, but one at least is query."""
    _, counts = np.unique(classes, return_counts=True)
    which, place = ramp(counts)
    return np.where(place < np.minimum(most, counts - 1)[which], SUPPORT, QUERY)


def _filtered(index: Index, found: _Found, rules: Rules) -> Mask:
    """Which rows meet the filter of their video's side."""
    side = np.repeat(found.sides, found.frames)
    keep = np.ones(len(found.rows), np.bool_)
    for number, draw in enumerate((rules.support, rules.query)):
        own = side == number
        if draw.criteria:
            keep[own] = _passes(index, found.rows[own], draw, rules)
    return keep


def _passes(index: Index, rows: Ints, draw: Draw, rules: Rules) -> Mask:
    if QUALITY[0] not in index.columns:
        raise UsageError(
            f"a filter by {', '.join(draw.filter)} needs ORBIT's annotations and the index has none; "
            "build again with the folder annotations beside the splits, or do without: "
            "support_filter=(), query_filter=()"
        )
    values = [(name.removeprefix("no_"), name in QUALITY) for name in draw.criteria]
    met = [index[name][rows] == value for name, value in values]
    return np.asarray(np.any(met, axis=0) if rules.filter_match == "any" else np.all(met, axis=0))


def _long_enough(
    index: Index, found: _Found, keep_row: Mask, rules: Rules
) -> tuple[Mask, list[Dropped]]:
    """Which videos have enough frames after the filter, and those that have not."""
    draws = (rules.support, rules.query)
    left = np.add.reduceat(keep_row, found.begins, dtype=np.int64)
    keep = left >= np.array([draw.min_frames for draw in draws])[found.sides]
    dropped = []
    for video in np.flatnonzero(~keep):
        draw = draws[found.sides[video]]
        met = f"meet {', '.join(draw.filter)}" if draw.filter else "are there"
        reason = (
            f"{left[video]:,} of {found.frames[video]:,} frames {met}, {draw.min_frames} needed"
        )
        dropped.append(Dropped("video", index.words["group"][found.groups[video]], reason))
    return keep, dropped


def _fit(dataset: Dataset, split: str, videos: Ints, rules: Rules) -> tuple[Mask, list[Dropped]]:
    """Which classes tasks can be drawn of, and what else the split has; by videos of either side."""
    fit = np.asarray(videos.min(axis=1) > 0)
    unfit: list[Dropped] = []
    pools: dict[str, list[int]] = {}
    for number, record in enumerate(dataset.manifest.classes):
        if record.split != split or not record.superclass:
            continue
        user = record.superclass if rules.centre == "user" else "everyone"
        pools.setdefault(user, []).append(number)
        if not fit[number]:
            support, query = videos[number]
            reason = f"{support} support and {query} query videos, one of each needed"
            unfit.append(Dropped("object", record.name, reason))
    least = LEAST_WAY if rules.way == "random" else 1
    for user, numbers in pools.items():
        usable = int(fit[numbers].sum())
        if usable < least:
            reason = f"{usable} of {len(numbers)} objects can be used, {least} needed"
            unfit.append(Dropped("user", user, reason))
            fit[numbers] = False
    return fit, unfit


def _examples(dropped: Sequence[Dropped]) -> str:
    """How many of what, and the first of each."""
    parts = []
    for what in ("user", "object", "video"):
        names = [f"{d.name} ({d.reason})" for d in dropped if d.what == what]
        more = " ..." if names[NAMED:] else ""
        if names:
            parts.append(f"{len(names):,} {what}(s): {', '.join(names[:NAMED])}{more}")
    return "; ".join(parts)


def _videos(
    dataset: Dataset,
    kept: tuple[Ints, Ints],
    rows: Ints,
    frames: Ints,
    dropped: tuple[Dropped, ...],
) -> Videos:
    """From the class and the side of each video kept, its rows and how many they are."""
    records = dataset.manifest.classes
    classes, position = np.unique(kept[0], return_inverse=True)
    user_of = np.array([records[class_id].superclass for class_id in classes])
    users = sorted(set(user_of.tolist()))
    return Videos(
        rows=rows,
        starts=np.concatenate([[0], np.cumsum(frames)]),
        classes=classes,
        firsts=np.searchsorted(2 * position + kept[1], np.arange(2 * len(classes) + 1)),
        users=tuple(users),
        objects=tuple(np.flatnonzero(user_of == user) for user in users),
        dropped=dropped,
    )
