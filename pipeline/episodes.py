"""Episodes before any pixel is read: which samples, with which labels.

A sampler is anything whose `sampler[number]` is an `EpisodePlan`; the loader needs no more.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Protocol, TypeAlias

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.settings import typed

EPISODE_DRAW: Final = 0
H_DRAW: Final = 1
REPLACEMENT_DRAW: Final = 2
FLIP_DRAW: Final = 3
QUERY_FLIP_DRAW: Final = 4
TURN_DRAW: Final = 5
LITE_DRAW: Final = 6
PAPER_ORDER_DRAW: Final = 7
ORBIT_ORDER_DRAW: Final = 16
ORBIT_QUERY_DRAW: Final = 17
"""The purposes of random numbers: draws for different purposes are independent."""

Int64: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
QueryClips: TypeAlias = Literal["blocks", "sliding"]


class Sampler(Protocol):
    """Episodes by number; a number always gives the same one, and past the last raises IndexError.

    A sampler may also have a `seed` (an int, 0 if absent), as all of ours have: the loader draws H from
    it, and a run can only be resumed with the same one.
    """

    def __getitem__(self, number: int, /) -> EpisodePlan: ...


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The support or the query set of one episode: rows of the dataset's index and their labels."""

    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    """0 to way - 1, one for each row; the class of label i is `EpisodePlan.classes[i]`."""

    def __post_init__(self) -> None:
        if self.rows.ndim != 1 or self.rows.shape != self.labels.shape:
            raise UsageError(
                f"an episode needs one label per row, got rows of shape {self.rows.shape} and labels "
                f"of shape {self.labels.shape}"
            )

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EpisodePlan:
    """One episode without its pixels. Two plans are equal when they ask for the same thing."""

    number: int
    dataset: str
    """The dataset's name in the shard set; an episode never mixes datasets."""
    classes: tuple[int, ...]
    """The class id of label 0, 1, ..."""
    support: Side
    query: Side
    clip: int = 1
    """Frames per clip (ORBIT). Support rows come in blocks of this many consecutive frames."""
    query_clips: QueryClips = "blocks"
    """blocks: query rows too. sliding: query rows are whole videos, frame by frame, and a frame's clip
    is the frame and the `clip` - 1 before it in its video; at the start, the first frame is repeated."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(map(int, self.classes)))  # numpy's are not JSON

    @property
    def way(self) -> int:
        return len(self.classes)

    @property
    def shots(self) -> NDArray[np.int64]:
        """The number of support rows of each label."""
        return np.bincount(self.support.labels, minlength=self.way)

    def described(self) -> dict[str, Any]:
        """The plan as plain values, for JSON and for its digest."""
        return {
            "number": self.number,
            "dataset": self.dataset,
            "classes": list(self.classes),
            "support": {"rows": self.support.rows.tolist(), "labels": self.support.labels.tolist()},
            "query": {"rows": self.query.rows.tolist(), "labels": self.query.labels.tolist()},
            "clip": self.clip,
            "query_clips": self.query_clips,
        }

    @classmethod
    def from_described(cls, values: object) -> EpisodePlan:
        """The inverse of `described`; IntegrityError or UsageError if these are not a plan's values."""
        read = typed(values, _PlanValues, "the plan")
        sides = {"support": read.support.side(), "query": read.query.side()}
        return cls(**{**vars(read), **sides})

    @property
    def digest(self) -> str:
        """A hash of all of the plan's values."""
        text = json.dumps(self.described(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EpisodePlan) and self.described() == other.described()

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        shots = self.shots
        spread = f"{shots.min()}" if shots.min() == shots.max() else f"{shots.min()}-{shots.max()}"
        return (
            f"episode {self.number}: {self.dataset}, {self.way}-way, {spread} shots, "
            f"{len(self.support):,} support, {len(self.query):,} query, {self.digest[:12]}"
        )


@dataclass(frozen=True)
class _SideValues:
    """A side as JSON has it."""

    rows: list[Int64]
    labels: list[Int64]

    def side(self) -> Side:
        return Side(np.array(self.rows, np.int64), np.array(self.labels, np.int64))


@dataclass(frozen=True)
class _PlanValues:
    """A plan as JSON has it."""

    number: int
    dataset: str
    classes: tuple[Int64, ...]
    support: _SideValues
    query: _SideValues
    clip: Annotated[int, Meta(ge=1)]
    query_clips: QueryClips


def plan_problem(plan: EpisodePlan, rows: int) -> str:
    """Why a plan does not fit a dataset of so many rows; "" if it does. A user's own sampler may return anything."""
    for name, side in (("support", plan.support), ("query", plan.query)):
        if not all_below(side.rows, rows):
            return (
                f"its {name} rows are {side.rows.min()} to {side.rows.max()}, and {plan.dataset} has rows 0 to "
                f"{rows - 1}"
            )
        if not all_below(side.labels, plan.way):
            return (
                f"its {name} labels are {side.labels.min()} to {side.labels.max()}, and the episode has "
                f"{plan.way} classes; labels are 0 to {plan.way - 1}"
            )
        if len(side) % plan.clip and not (name == "query" and plan.query_clips == "sliding"):
            return f"{len(side)} {name} rows are not whole clips of {plan.clip}"
    return ""


def all_below(numbers: NDArray[np.int64], end: int) -> bool:
    """Whether all numbers are 0 to end - 1."""
    return not len(numbers) or bool(numbers.min() >= 0 and numbers.max() < end)


def generator(seed: int, number: int, purpose: int = EPISODE_DRAW) -> np.random.Generator:
    """Random numbers that depend on these three alone, so that any episode can be drawn without others."""
    return np.random.Generator(philox(seed, number, purpose))


def philox(seed: int, number: int, purpose: int = EPISODE_DRAW) -> np.random.Philox:
    """The bit generator of these three; each triple has a stretch of 2**192 draws of its own."""
    if not 0 <= seed < 2**64 or number < 0:
        raise UsageError(f"seeds and episode numbers start at 0, got {seed} and {number}")
    return np.random.Philox(key=np.array([seed, number], np.uint64), counter=[0, 0, 0, purpose])


def choose_h(plan: EpisodePlan, h: int, seed: int) -> NDArray[np.int64]:
    """Draw the support positions that carry gradient, ascending: `h` of them, or all if there are fewer.

    The draw is uniform without replacement, as in the paper's code. With clips, `h` counts clips, and the
    positions are those of their frames.
    """
    if h < 0:
        raise UsageError(f"h is a number of support images, 0 or more, got {h}")
    units = len(plan.support) // plan.clip
    draw = generator(seed, plan.number, H_DRAW).permutation(units)[:h]
    return (np.sort(draw)[:, None] * plan.clip + np.arange(plan.clip)).ravel()
