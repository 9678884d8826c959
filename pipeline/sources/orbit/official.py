"""The ORBIT benchmark as published, and how a set on disk differs from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple, cast

from pipeline.records import Split
from pipeline.sources.facts import fact_rows
from pipeline.sources.orbit.layout import Video

NEEDED: Final = (
    "ORBIT comes as train.zip, validation.zip and test.zip from "
    "https://city.figshare.com/articles/dataset/_/14294597 (54 GB at 224 pixels, 83 GB at 1080); "
    "put them there, unpacked or not. Annotations: data/orbit_extra_annotations.zip of "
    "https://github.com/microsoft/ORBIT-Dataset, as it is or as the folder annotations"
)


class Official(NamedTuple):
    """A split as published."""

    objects: int
    videos: int
    users: frozenset[str]


def official_splits() -> dict[Split, Official]:
    """The benchmark's users, and how many objects and videos each split has."""
    return {
        cast("Split", split): Official(int(objects), int(videos), frozenset(users.split()))
        for split, objects, videos, users in fact_rows("orbit")
    }


def departures(
    videos: Sequence[tuple[Split, Video]], official: Mapping[Split, Official]
) -> Iterator[str]:
    """How a set that looks like the benchmark differs from it, in words."""
    users = {(split, video.place.user) for split, video in videos}
    split_of = {user: split for split, facts in official.items() for user in facts.users}
    if moved := sorted(u for s, u in users if s and split_of.get(u, s) != s):
        yield f"users in another split than the benchmark's: {', '.join(moved)}"
    if twice := sorted(u for u, n in Counter(u for _, u in users).items() if n > 1):
        yield f"users in more than one split: {', '.join(twice)}"
    for split, facts in official.items():
        there = {v.place for s, v in videos if s == split and v.place.level == split}
        if {place.user for place in there} == facts.users:
            objects = len({(place.user, place.object) for place in there})
            if (objects, len(there)) != (facts.objects, facts.videos):
                yield (
                    f"{split} has {objects:,} objects and {len(there):,} videos; "
                    f"published are {facts.objects:,} and {facts.videos:,}"
                )
