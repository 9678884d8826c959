"""Generated ORBIT indexes with any number of videos, with no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.constants import QUALITY_ISSUES
from pipeline.index import Dataset, DatasetManifest, SampleIndex
from pipeline.records import SPLITS, ClassRecord, Recipe, Split
from pipeline.shardset import ShardSet
from pipeline.sources.orbit.official import official_splits

TEST_WAYS: Mapping[str, int] = {
    "P554": 5, "P233": 6, "P177": 7, "P271": 7, "P900": 8, "P485": 9, "P204": 9, "P455": 9, "P421": 10,
    "P953": 10, "P609": 10, "P452": 10, "P198": 10, "P999": 11, "P901": 11, "P642": 13, "P753": 13,
}  # fmt: skip


class OrbitVideo(NamedTuple):
    """One video of a generated set."""

    user: str
    thing: str
    kind: str
    number: int
    frames: int
    split: Split = "test"

    @property
    def name(self) -> str:
        return f"{self.user}--{self.thing}--{self.kind}--{self.number:03d}"


def orbit_set(
    videos: Sequence[OrbitVideo],
    flags: Mapping[str, NDArray[np.int8]] | None = None,
    order: NDArray[np.int64] | None = None,
) -> ShardSet:
    """A set named orbit. `flags`: quality columns by video's frames; `order`: how rows lie in a class."""
    videos = sorted(videos, key=lambda f: (SPLITS.index(f.split), f.user, f.thing, f.kind, f.name))
    names = list(dict.fromkeys((video.split, video.user, video.thing) for video in videos))
    classes = tuple(ClassRecord(name=f"{u}/{t}", split=s, superclass=u) for s, u, t in names)
    frames = np.array([video.frames for video in videos])
    class_of = np.array([names.index((f.split, f.user, f.thing)) for f in videos])
    words: dict[str, tuple[str, ...]] = {}
    columns: dict[str, NDArray[Any]] = dict(flags or {})
    for column, texts in (
        ("split", [video.split for video in videos]),
        ("group", [video.name for video in videos]),
        ("user", [video.user for video in videos]),
        ("kind", [video.kind for video in videos]),
    ):
        words[column] = tuple(sorted(set(texts), reverse=True))  # codes follow no order of names
        code = {word: number for number, word in enumerate(words[column])}
        columns[column] = np.repeat(np.array([code[text] for text in texts], np.int32), frames)
    columns["class_id"] = np.repeat(class_of.astype(np.int32), frames)
    columns["frame"] = np.concatenate([np.arange(1, n + 1, dtype=np.int32) for n in frames])
    if order is not None:
        order = order[np.argsort(columns["class_id"][order], kind="stable")]
        columns = {name: column[order] for name, column in columns.items()}
    columns["key"] = np.arange(frames.sum())
    starts = np.searchsorted(columns["class_id"], np.arange(len(classes) + 1))
    dataset = Dataset(Path("orbit"), _manifest(classes), SampleIndex(columns, words, starts))
    return ShardSet("generated", {"orbit": dataset})


def absence_flags(videos: Sequence[OrbitVideo], missing: Mapping[str, int]) -> dict[str, NDArray[np.int8]]:
    """Quality columns of videos in sorted order: the object is not in the first so many frames."""
    columns: dict[str, list[NDArray[np.int8]]] = {name: [] for name in QUALITY_ISSUES}
    for video in sorted(videos, key=lambda f: (SPLITS.index(f.split), f.user, f.thing, f.kind, f.name)):
        gone = np.arange(video.frames) < missing.get(video.name, 0)
        for name in QUALITY_ISSUES:
            other = np.where(gone, -1, np.arange(video.frames) % 2 if name == "blur_issue" else 0)
            columns[name].append((gone if name == QUALITY_ISSUES[0] else other).astype(np.int8))
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def benchmark_videos(split: Split) -> list[OrbitVideo]:
    """A split with the published numbers of users, objects and videos; frames are made up."""
    users = sorted(official_splits()[split].users)
    if split == "test":
        ways = [TEST_WAYS[user] for user in users]
        clean = [10] * 5 + [9] + [6] * 82 + [5] * 69 + [2]
        clutter = [13] + [2] * 130 + [1] * 27
    elif split == "validation":
        ways, clean, clutter = [11, 10, 9, 8, 7, 5], [6] * 34 + [5] * 16, [2] * 13 + [1] * 37
    else:
        ways = [11, 3] + [6] * 22 + [7] * 16 + [5] * 4
        clean, clutter = [44, 2] + [7] * 112 + [6] * 164, [7] + [2] * 179 + [1] * 98
    rng = np.random.default_rng(1)
    videos = []
    things = [(user, f"thing {n:02d}") for user, way in zip(users, ways, strict=True) for n in range(way)]
    for kind, counts in (("clean", clean), ("clutter", clutter)):
        for (user, thing), count in zip(things, rng.permutation(counts), strict=True):
            lengths = rng.integers(60, 130, count)
            videos += [OrbitVideo(user, thing, kind, n, int(k), split) for n, k in enumerate(lengths)]
    return videos


def _manifest(classes: tuple[ClassRecord, ...]) -> DatasetManifest:
    return DatasetManifest(
        name="orbit",
        plan_hash="",
        recipe=Recipe(sizes=(84,)),
        classes=classes,
        hierarchy={},
        samples=0,
        splits={},
        shards={},
        sources=(),
        quarantined=(),
        versions=(),
        index_sha256="",
    )
