"""The numbers of ORBIT's published protocols, and how a user changes them.

"2021" is what Massiceti et al. (arXiv:2104.03841) and LITE (arXiv:2107.01105) report; "2022" is what the
benchmark's code has done since December 2022. Their figures cannot be compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, TypeAlias, get_args

from pipeline.constants import QUALITY
from pipeline.errors import UsageError

ProtocolName: TypeAlias = Literal["2021", "2022"]
Mode: TypeAlias = Literal["clu-ve", "cle-ve"]
Centre: TypeAlias = Literal["user", "object"]
Padding: TypeAlias = Literal["official", "minimal"]
Amount: TypeAlias = Literal["random", "all"]
ClipDraw: TypeAlias = Literal["exactly", "at most", "random", "uniform", "all"]

SPLITS: Final = ("train", "validation", "test")
NEGATED: Final = tuple(f"no_{name}" for name in QUALITY)
GROUPS: Final = {"no_issues": NEGATED, "mixed_issues": QUALITY}
"""The benchmark's short names for many criteria."""
LEAST_WAY: Final = 2
MANY_OBJECTS: Final = 6
CAPS_84PX: Final = {"support": (10, 5), "query": (8, 4)}
"""Videos of an object below `MANY_OBJECTS` objects and from there on: the 84-pixel baselines' memory."""
WAY_CAP_84PX: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """How one side of a task is drawn from the videos of each of its objects."""

    videos: Amount
    """random: a uniform number of them. all: as many as `video_cap` allows. At random either way."""
    video_cap: int = 15
    clips: ClipDraw
    """exactly: `clip_count` at random, a short video's frames doubled. at most: that many, or what there
    is. random: a uniform number up to it. uniform: every `clip_step`-th, that many at most. all."""
    clip_count: int = 200
    clip_step: int = 1
    filter: tuple[str, ...] = ()
    """Frames that may be drawn: `blur_issue` has it, `no_blur_issue` is annotated as free of it."""
    min_frames: int = 1
    """A video with fewer frames after the filter is left out."""

    @property
    def criteria(self) -> tuple[str, ...]:
        """The filter with short names spelled out."""
        return tuple(name for entry in self.filter for name in GROUPS.get(entry, (entry,)))

    def __post_init__(self) -> None:
        _choice("videos", self.videos, Amount)
        _choice("clips", self.clips, ClipDraw)
        _from_one(self, "video_cap", "clip_count", "clip_step", "min_frames")
        if isinstance(self.filter, str):
            raise UsageError(f"a filter is a tuple of criteria, got {self.filter!r}")
        if unknown := set(self.criteria) - {*QUALITY, *NEGATED}:
            raise UsageError(
                f"frames are filtered by {', '.join((*QUALITY, *GROUPS))} or one of the first seven with "
                f"no_ before it; got {', '.join(sorted(unknown))}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """One protocol on one split. Each field is a keyword of `Orbit`, `Draw`'s as support_ and query_."""

    training: bool
    """Endless tasks of mixed clips; otherwise a fixed number for each user, the query by video."""
    mode: Mode = "clu-ve"
    """clu-ve: support from clean videos, query from clutter. cle-ve: both from clean ones."""
    centre: Centre = "user"
    """user: a task has objects of one user. object: of all users, in training only."""
    tasks_per_user: int
    """In an epoch of training; in all otherwise."""
    way: Amount
    """random: uniform from 2 on. all: every object."""
    way_cap: int | None = 15
    clip_length: int
    frame_cap: int = 1000
    """Frames of a video that count, from its first on (after the filter)."""
    frame_step: int = 1
    """Every how many-th of those frames is used."""
    padding: Padding
    """official: copies of the last frame up to the next multiple of the clip length, a whole clip of
    them where it is one already. minimal: only where needed, and none in a sliding query."""
    cle_support_videos: int = 5
    """cle-ve: that many first videos of an object are support, but one at least is query."""
    shared_query: bool = False
    """The tasks of a user have one query set and differ in their support."""
    unfit: Literal["raise", "drop"]
    """What becomes of an object without support or query videos, and of a user with too few objects.
    (2021's code fails when it draws such an object, or tests without it being shown; 2022's drops it.)"""
    filter_match: Literal["any", "all"] = "any"
    """Whether a frame must meet one criterion of a filter, as the benchmark has it, or each."""
    caps_84px: bool = False
    """Training: the tighter caps of the 84-pixel baselines, on objects and on videos of an object."""
    support: Draw
    query: Draw

    def __post_init__(self) -> None:
        _choice("mode", self.mode, Mode)
        _choice("centre", self.centre, Centre)
        _choice("way", self.way, Amount)
        _choice("padding", self.padding, Padding)
        _choice("unfit", self.unfit, Literal["raise", "drop"])
        _choice("filter_match", self.filter_match, Literal["any", "all"])
        _from_one(
            self, "tasks_per_user", "clip_length", "frame_cap", "frame_step", "cle_support_videos"
        )
        if self.way_cap is not None and self.way_cap < LEAST_WAY:
            raise UsageError(f"way_cap is {LEAST_WAY} or more, or None, got {self.way_cap}")
        if not self.training and (self.caps_84px or self.centre == "object"):
            raise UsageError(
                "caps_84px and centre='object' are for split='train'; validation and test tasks are "
                "user-centric and uncapped in every protocol"
            )
        if self.training and self.shared_query:
            raise UsageError("shared_query is for validation and test: training draws every query")

    @property
    def sliding(self) -> bool:
        """Whether the query is whole videos, each frame with those before it as its clip."""
        return not self.training and self.query.clips == "all" and self.clip_length > 1

    def most_objects(self) -> int | None:
        """The cap on the way, if there is one."""
        if not self.caps_84px:
            return self.way_cap
        return min(self.way_cap or WAY_CAP_84PX, WAY_CAP_84PX)

    def most_videos(self, side: Literal["support", "query"], way: int) -> int:
        """The cap on the videos of an object in a task of this way."""
        draw: Draw = getattr(self, side)
        if not self.caps_84px:
            return draw.video_cap
        return min(draw.video_cap, CAPS_84PX[side][way >= MANY_OBJECTS])


def published(protocol: ProtocolName, split: str, changes: Mapping[str, Any]) -> Rules:
    """A protocol's rules on a split, with a user's changes."""
    _choice("protocol", protocol, ProtocolName)
    if split not in SPLITS:
        raise UsageError(f"split is one of {', '.join(SPLITS)}, got {split!r}")
    rules = (_rules_2021 if protocol == "2021" else _rules_2022)(split)
    return _changed(rules, changes)


def _rules_2021(split: str) -> Rules:
    training = split == "train"
    four = Draw(videos="random", clips="exactly", clip_count=4)
    return Rules(
        training=training,
        tasks_per_user=50 if training else 5,
        way="random" if training else "all",
        way_cap=15 if training else None,
        clip_length=8,
        padding="official",
        shared_query=not training,
        unfit="raise",
        support=four if training else Draw(videos="all", clips="exactly", clip_count=8),
        query=four if training else Draw(videos="all", clips="all"),
    )


def _rules_2022(split: str) -> Rules:
    training = split == "train"
    amount: Amount = "random" if training else "all"
    query = (
        Draw(videos=amount, clips="random", min_frames=50)
        if training
        else Draw(
            videos=amount, clips="at most", min_frames=50, filter=("no_object_not_present_issue",)
        )
    )
    return Rules(
        training=training,
        tasks_per_user={"train": 50, "validation": 30, "test": 50}[split],
        way=amount,
        clip_length=1,
        padding="minimal",
        unfit="drop",
        support=Draw(videos=amount, clips="uniform", clip_step=30),
        query=query,
    )


def _changed(rules: Rules, changes: Mapping[str, Any]) -> Rules:
    """`support_clips` is `clips` of `support`; the other names are fields of the rules."""
    known = {field.name for field in fields(Rules)} - {"training", "support", "query"}
    sided = {f"{side}_{f.name}" for side in ("support", "query") for f in fields(Draw)}
    if unknown := set(changes) - known - sided:
        raise UsageError(
            f"Orbit has no rule {', '.join(sorted(unknown))}; it has "
            f"{', '.join([*sorted(known), *sorted(sided)])}"
        )
    for side in ("support", "query"):
        names = {f"{side}_{field.name}": field.name for field in fields(Draw)}
        own = {names[name]: changes[name] for name in names.keys() & changes.keys()}
        draw = replace(getattr(rules, side), **own)
        rules = replace(rules, **{side: draw})
    return replace(rules, **{name: changes[name] for name in known & set(changes)})


def _choice(name: str, value: object, literal: object) -> None:
    if value not in get_args(literal):
        raise UsageError(f"{name} is one of {', '.join(get_args(literal))}; got {value!r}")


def _from_one(record: Draw | Rules, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} is a whole number, 1 or more; got {value!r}")
