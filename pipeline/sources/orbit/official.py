"""The ORBIT benchmark as published, and how a dataset on disk differs from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, cast

from pipeline.records import Split
from pipeline.sources.facts import fact_rows
from pipeline.sources.orbit.layout import ListedVideo

ORBIT_DOWNLOADS: Final = (
    "ORBIT comes as train.zip, validation.zip and test.zip from "
    "https://city.figshare.com/articles/dataset/_/14294597 (54 GB at 224 pixels, 83 GB at 1080); "
    "put them there, unpacked or not. Annotations: data/orbit_extra_annotations.zip of "
    "https://github.com/microsoft/ORBIT-Dataset, as it is or as the folder annotations"
)


class OfficialSplit(NamedTuple):
    """A split of the benchmark as published."""

    objects: int
    videos: int
    users: frozenset[str]


def official_splits() -> dict[Split, OfficialSplit]:
    """The users of each split of the benchmark, and how many objects and videos it has."""
    return {
        cast("Split", split): OfficialSplit(int(objects), int(videos), frozenset(users.split()))
        for split, objects, videos, users in fact_rows("orbit")
    }


def describe_departures(
    videos: Sequence[tuple[Split, ListedVideo]], official: Mapping[Split, OfficialSplit]
) -> Iterator[str]:
    """Say in words how a dataset that looks like the benchmark differs from it."""
    users = {(split, video.key.user) for split, video in videos}
    split_of = {user: split for split, facts in official.items() for user in facts.users}
    if moved := sorted(u for s, u in users if s and split_of.get(u, s) != s):
        yield f"users in another split than the benchmark's: {', '.join(moved)}"
    if twice := sorted(u for u, n in Counter(u for _, u in users).items() if n > 1):
        yield f"users in more than one split: {', '.join(twice)}"
    for split, facts in official.items():
        keys = {v.key for s, v in videos if s == split and v.key.level == split}
        if {key.user for key in keys} == facts.users:
            objects = len({(key.user, key.object) for key in keys})
            if (objects, len(keys)) != (facts.objects, facts.videos):
                yield (
                    f"{split} has {objects:,} objects and {len(keys):,} videos; "
                    f"published are {facts.objects:,} and {facts.videos:,}"
                )
