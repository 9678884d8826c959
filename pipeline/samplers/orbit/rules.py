"""The rules of ORBIT's published protocols, and a user's changes to them.

"2021" is what Massiceti et al. (arXiv:2104.03841) and LITE (arXiv:2107.01105) report; "2022" is what the
benchmark's code has done since December 2022. Results of the two cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, TypeAlias, get_args

from pipeline.constants import QUALITY_ISSUES
from pipeline.errors import UsageError, check_choice
from pipeline.records import SPLITS

ProtocolName: TypeAlias = Literal["2021", "2022"]
OrbitMode: TypeAlias = Literal["clu-ve", "cle-ve"]
TaskCentre: TypeAlias = Literal["user", "object"]
ClipPadding: TypeAlias = Literal["official", "minimal"]
DrawnAmount: TypeAlias = Literal["random", "all"]
ClipDraw: TypeAlias = Literal["exactly", "at most", "random", "uniform", "all"]

NEGATED_QUALITY: Final = tuple(f"no_{name}" for name in QUALITY_ISSUES)
FILTER_GROUPS: Final = {"no_issues": NEGATED_QUALITY, "mixed_issues": QUALITY_ISSUES}
"""The benchmark's short names for several criteria."""
LEAST_WAY: Final = 2
MANY_OBJECTS: Final = 6
CAPS_84PX: Final = {"support": (10, 5), "query": (8, 4)}
"""Videos of an object, with fewer than `MANY_OBJECTS` objects and otherwise: for the 84-pixel baselines' memory."""
WAY_CAP_84PX: Final = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class SideRules:
    """How one side of a task, support or query, is drawn from the videos of each of its objects."""

    videos: DrawnAmount
    """random: a uniform number of videos. all: as many as `video_cap` allows. Which ones is random."""
    video_cap: int = 15
    clips: ClipDraw
    """exactly: `clip_count` clips at random; a short video's frames repeat. at most: that many, or all there
    are. random: a uniform number up to that. uniform: every `clip_step`-th, at most that many. all: all."""
    clip_count: int = 200
    clip_step: int = 1
    filter: tuple[str, ...] = ()
    """Criteria for frames: `blur_issue` is annotated with that issue, `no_blur_issue` as free of it."""
    min_frames: int = 1
    """A video with fewer frames after the filter is left out."""

    @property
    def criteria(self) -> tuple[str, ...]:
        """The filter with short names spelled out."""
        return tuple(name for entry in self.filter for name in FILTER_GROUPS.get(entry, (entry,)))

    def __post_init__(self) -> None:
        check_choice(self.videos, get_args(DrawnAmount), "videos")
        check_choice(self.clips, get_args(ClipDraw), "clips")
        _check_counts(self, "video_cap", "clip_count", "clip_step", "min_frames")
        if isinstance(self.filter, str):
            raise UsageError(f"a filter is a tuple of criteria, got {self.filter!r}")
        if unknown := set(self.criteria) - {*QUALITY_ISSUES, *NEGATED_QUALITY}:
            raise UsageError(
                f"frames are filtered by {', '.join((*QUALITY_ISSUES, *FILTER_GROUPS))} or one of the first seven with "
                f"no_ before it; got {', '.join(sorted(unknown))}"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class OrbitRules:
    """One protocol on one split. Fields are keywords of `Orbit`; those of `SideRules` as support_, query_."""

    training: bool
    """Endless tasks with shuffled clips; otherwise a fixed number for each user, with the query by video."""
    mode: OrbitMode = "clu-ve"
    """clu-ve: support from clean videos, query from clutter videos. cle-ve: both from clean videos."""
    centre: TaskCentre = "user"
    """user: a task has objects of one user. object: of all users; in training only."""
    tasks_per_user: int
    """In training for each epoch; otherwise in all."""
    way: DrawnAmount
    """Objects of a task. random: a uniform number from 2 on. all: every object. `way_cap` limits both."""
    way_cap: int | None = 15
    clip_length: int
    frame_cap: int = 1000
    """Frames of a video that are used at most: its first ones (after the filter)."""
    frame_step: int = 1
    """Only every `frame_step`-th of those frames is used."""
    padding: ClipPadding
    """official: copies of the last frame up to the next multiple of the clip length, or a whole clip of
    copies where the length is a multiple already. minimal: only where needed; none in a sliding query."""
    cle_support_videos: int = 5
    """cle-ve: an object's first videos, so many, are support, and the others query: one at least."""
    shared_query: bool = False
    """The tasks of a user have one query set and differ in their support."""
    unfit: Literal["raise", "drop"]
    """What to do with an object without support or query videos, and with a user of too few objects.
    (2021's code fails when it draws such an object, or tests on it without support; 2022's drops it.)"""
    filter_match: Literal["any", "all"] = "any"
    """Whether a frame must meet one criterion of a filter (as in the benchmark) or all of them."""
    caps_84px: bool = False
    """In training: the tighter caps of the 84-pixel baselines, on objects and on videos of an object."""
    support: SideRules
    query: SideRules

    def __post_init__(self) -> None:
        check_choice(self.mode, get_args(OrbitMode), "mode")
        check_choice(self.centre, get_args(TaskCentre), "centre")
        check_choice(self.way, get_args(DrawnAmount), "way")
        check_choice(self.padding, get_args(ClipPadding), "padding")
        check_choice(self.unfit, ("raise", "drop"), "unfit")
        check_choice(self.filter_match, ("any", "all"), "filter_match")
        _check_counts(self, "tasks_per_user", "clip_length", "frame_cap", "frame_step", "cle_support_videos")
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
        """Whether the query is whole videos, where each frame's clip is the frame and those before it."""
        return not self.training and self.query.clips == "all" and self.clip_length > 1

    def most_objects(self) -> int | None:
        """The largest way of a task, if there is a limit."""
        if not self.caps_84px:
            return self.way_cap
        return min(self.way_cap or WAY_CAP_84PX, WAY_CAP_84PX)

    def most_videos(self, side: Literal["support", "query"], way: int) -> int:
        """The most videos of an object in a task of this way."""
        draw: SideRules = getattr(self, side)
        if not self.caps_84px:
            return draw.video_cap
        return min(draw.video_cap, CAPS_84PX[side][way >= MANY_OBJECTS])


def protocol_rules(protocol: ProtocolName, split: str, changes: Mapping[str, Any]) -> OrbitRules:
    """The rules of a protocol on a split, with a user's changes."""
    check_choice(protocol, get_args(ProtocolName), "protocol")
    check_choice(split, [name for name in SPLITS if name], "split")
    rules = (_rules_2021 if protocol == "2021" else _rules_2022)(split)
    return _with_changes(rules, changes)


def _rules_2021(split: str) -> OrbitRules:
    training = split == "train"
    four = SideRules(videos="random", clips="exactly", clip_count=4)
    return OrbitRules(
        training=training,
        tasks_per_user=50 if training else 5,
        way="random" if training else "all",
        way_cap=15 if training else None,
        clip_length=8,
        padding="official",
        shared_query=not training,
        unfit="raise",
        support=four if training else SideRules(videos="all", clips="exactly", clip_count=8),
        query=four if training else SideRules(videos="all", clips="all"),
    )


def _rules_2022(split: str) -> OrbitRules:
    training = split == "train"
    amount: DrawnAmount = "random" if training else "all"
    query = (
        SideRules(videos=amount, clips="random", min_frames=50)
        if training
        else SideRules(videos=amount, clips="at most", min_frames=50, filter=("no_object_not_present_issue",))
    )
    return OrbitRules(
        training=training,
        tasks_per_user={"train": 50, "validation": 30, "test": 50}[split],
        way=amount,
        clip_length=1,
        padding="minimal",
        unfit="drop",
        support=SideRules(videos=amount, clips="uniform", clip_step=30),
        query=query,
    )


def _with_changes(rules: OrbitRules, changes: Mapping[str, Any]) -> OrbitRules:
    """The rules with these fields changed; `support_clips` is the field `clips` of `support`."""
    own_fields = {field.name for field in fields(OrbitRules)} - {"training", "support", "query"}
    sided = {f"{side}_{f.name}" for side in ("support", "query") for f in fields(SideRules)}
    if unknown := set(changes) - own_fields - sided:
        raise UsageError(
            f"Orbit has no rule {', '.join(sorted(unknown))}; it has "
            f"{', '.join([*sorted(own_fields), *sorted(sided)])}"
        )
    for side in ("support", "query"):
        names = {f"{side}_{field.name}": field.name for field in fields(SideRules)}
        changed = {names[name]: changes[name] for name in names.keys() & changes.keys()}
        rules = replace(rules, **{side: replace(getattr(rules, side), **changed)})
    return replace(rules, **{name: changes[name] for name in own_fields & set(changes)})


def _check_counts(record: SideRules | OrbitRules, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{name} is a whole number, 1 or more; got {value!r}")
