"""What an evaluation finds, in travel order: a task's answers, a dataset's score, the whole.

All are JSON on disk: one line per task while it runs (`tasks-*.jsonl`), one file at the end
(`evaluation.json`), from which reports are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.layout import write_whole

FORMAT: Final = "lite-shards evaluation 1"
FILE: Final = "evaluation.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoAnswers:
    """ORBIT: what a task said of one query video, frame by frame."""

    video: str
    label: int
    """The right answer: a position among the task's objects."""
    frames: tuple[int, ...]
    """Number of each scored frame in its video, in order."""
    answers: tuple[int, ...]
    """The label that each of them was given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAnswers:
    """One task, adapted to and asked."""

    dataset: str
    number: int
    way: int
    support: int
    """Images."""
    queries: int
    """Images that were asked about."""
    correct: int
    """Queries answered rightly; a query of a class without support images cannot be."""
    adapt_seconds: float
    """From the images in memory to the classifier."""
    mode: str = ""
    """ORBIT: cle-ve or clu-ve."""
    user: str = ""
    """ORBIT."""
    objects: tuple[str, ...] = ()
    """ORBIT: what label 0, 1, ... is."""
    videos: tuple[VideoAnswers, ...] = ()
    """ORBIT: the query, by video."""

    @property
    def accuracy(self) -> float:
        """Over the task's queries."""
        return self.correct / self.queries

    def described(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_described(cls, values: Mapping[str, Any]) -> TaskAnswers:
        """The inverse of `described`."""
        videos = tuple(
            VideoAnswers(
                video=video["video"], label=video["label"],
                frames=tuple(video["frames"]), answers=tuple(video["answers"]),
            )
            for video in values["videos"]
        )  # fmt: skip
        return cls(**{**values, "objects": tuple(values["objects"]), "videos": videos})


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One number of a table."""

    dataset: str
    """A dataset, or a task of VTAB; ORBIT: its name in the shard set."""
    metric: str
    """accuracy; ORBIT: frame_accuracy, video_accuracy, frames_to_recognition, and `user_...` of each;
    since 2022 `task_frame_accuracy` and `object_frame_accuracy`, too."""
    value: float
    """A share, 0 to 1."""
    interval: float | None
    """Half of the 95 % interval; None where there is one task only (VTAB)."""
    count: int
    """Values that it is the mean of: tasks, videos, users."""
    chance: float | None = None
    """What guessing would come to."""
    group: str = ""
    """VTAB: natural, specialised or structured. ORBIT: cle-ve or clu-ve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Average:
    """The mean over datasets, as the papers' tables have it."""

    name: str
    """"all", or a group of VTAB."""
    metric: str
    value: float
    found: int
    """Datasets it is over."""
    wanted: int
    """Datasets that the benchmark has."""
    missing: tuple[str, ...] = ()
    """Those that the shard set lacks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What adapting takes, as in the paper's Table 1: means over the tasks."""

    parameters: int
    """Buffers and the head of each task left out."""
    macs: float | None
    """Multiply-accumulates to adapt, forward (and backward counted as the paper does); None if unknown."""
    steps: str
    """1F, 15FB, 50FB."""
    seconds: float
    """Of wall time, data already in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """All that a report needs to know of one learner under one protocol."""

    name: str
    """Of the row; the run's folder by default."""
    protocol: str
    """md, vtab, orbit or fixed."""
    options: Mapping[str, Any]
    """What narrows the protocol: splits, mode, way, shot, tasks, seed, image size ..."""
    learner: Mapping[str, Any]
    """`learners.methods.catalogue.About.described()`, and "tasks": episodes that it was trained on."""
    shards: str
    scores: tuple[Score, ...]
    averages: tuple[Average, ...]
    cost: Cost
    notes: tuple[str, ...] = ()
    """What a reader must know: what is missing, or makes the figures incomparable."""
    format: str = field(default=FORMAT)

    def save(self, folder: Path) -> Path:
        """Write `evaluation.json`, whole or not at all."""
        path = folder / FILE
        write_whole(path, (json.dumps(asdict(self), indent=1) + "\n").encode())
        return path

    @classmethod
    def load(cls, place: Path) -> Evaluation:
        """From a file, or from the folder that holds it."""
        path = place / FILE if place.is_dir() else place
        if not path.is_file():
            raise SourceMissing(
                f"{place} is no evaluation: needed {FILE}; python -m learners.evaluate makes one"
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values.get("format") != FORMAT:
                raise IntegrityError(
                    f"{path} has the format {values.get('format')!r} and {FORMAT!r} is needed; "
                    "evaluate again"
                )
            parts = {
                "scores": tuple(Score(**score) for score in values["scores"]),
                "averages": tuple(
                    Average(**{**average, "missing": tuple(average["missing"])})
                    for average in values["averages"]
                ),
                "cost": Cost(**values["cost"]),
                "notes": tuple(values["notes"]),
            }
            return cls(**{**values, **parts})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{path} is damaged: {error!r}; evaluate again") from error
