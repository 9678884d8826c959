"""The records of an evaluation, in travel order: the answers to a task, the score of a dataset, the result.

All are JSON on disk: one line per task while the evaluation runs (`tasks-*.jsonl`), one file at the end
(`evaluation.json`), from which reports are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.layout import write_atomically
from pipeline.settings import read_json, typed

EVALUATION_FORMAT: Final = "lite-shards evaluation 1"
EVALUATION_FILE: Final = "evaluation.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoAnswers:
    """ORBIT: the answers to one query video, frame by frame."""

    video: str
    label: int
    """The correct answer: a position among the task's objects."""
    frames: tuple[int, ...]
    """The number of each scored frame in its video, in order."""
    answers: tuple[int, ...]
    """The predicted label of each of these frames."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskCalibration:
    """How far the probabilities of a task's answers are to be trusted."""

    temperature: float
    """That logits were divided by."""
    nll: float
    """Mean negative log probability of the right class, in nats."""
    ece: float
    """Expected calibration error: how far confidence is from accuracy, over fifteen bins of confidence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskAnswers:
    """One finished task."""

    dataset: str
    number: int
    way: int
    support: int
    """Support images."""
    queries: int
    """Query images."""
    correct: int
    """Queries answered correctly; a query of a class without support images never is."""
    adapt_seconds: float
    """Wall time from the images in memory to the classifier."""
    calibration: TaskCalibration | None = None
    """Of the queries whose class has support images; None in evaluations from before December 2026."""
    fitted_calibration: TaskCalibration | None = None
    """The same at the temperature that fits validation tasks."""
    mode: str = ""
    """ORBIT: cle-ve or clu-ve."""
    user: str = ""
    """ORBIT."""
    objects: tuple[str, ...] = ()
    """ORBIT: the objects with label 0, 1, ..."""
    videos: tuple[VideoAnswers, ...] = ()
    """ORBIT: the answers by query video."""

    @property
    def accuracy(self) -> float:
        """The share of the queries that was answered correctly."""
        return self.correct / self.queries

    def described(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetScore:
    """One score of one dataset: a number of a table."""

    dataset: str
    """A dataset, or a task of VTAB; ORBIT: its name in the shard set."""
    metric: str
    """accuracy; ORBIT: frame_accuracy, video_accuracy, frames_to_recognition, and `user_...` of each;
    since 2022 also `task_frame_accuracy` and `object_frame_accuracy`."""
    value: float
    """A share, 0 to 1."""
    interval: float | None
    """Half of the 95 % interval; None for a single task (VTAB)."""
    count: int
    """The number of values that it is the mean of: tasks, videos, users."""
    chance: float | None = None
    """The score of guessing."""
    group: str = ""
    """VTAB: natural, specialised or structured. ORBIT: cle-ve or clu-ve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationScore:
    """The calibration of one dataset's tasks: means over tasks, with half of their 95 % intervals."""

    dataset: str
    group: str
    """ORBIT: cle-ve or clu-ve."""
    temperature: float
    """That logits were divided by."""
    fitted: bool
    """Whether that is the temperature that fits validation tasks; else it is 1."""
    nll: float
    nll_interval: float | None
    ece: float
    ece_interval: float | None
    count: int
    """Tasks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AverageScore:
    """A mean over datasets, as in the papers' tables."""

    name: str
    """"all", or a group of VTAB."""
    metric: str
    value: float
    found: int
    """The number of datasets it is over."""
    wanted: int
    """The number of datasets that the benchmark has."""
    missing: tuple[str, ...] = ()
    """The datasets that the shard set lacks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptationCost:
    """The cost of adapting to a task, as in the paper's Table 1: over all tasks."""

    parameters: int
    """Without buffers and the head of each task."""
    macs: float | None
    """Mean multiply-accumulates to adapt, with backward passes counted as the paper does; None if unknown."""
    steps: str
    """1F, 15FB, 50FB."""
    seconds: float
    """Median wall time, with the data already in memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownNumbers:
    """The options and facts of a learner that a report compares or formats as numbers."""

    image_size: int | None = None
    tasks: int | None = None
    h: int | None = None
    tasks_per_user: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """The result of one learner under one protocol, with all that a report needs."""

    name: str
    """The name of its row in tables; by default that of the run's folder."""
    protocol: str
    """md, vtab, orbit or fixed."""
    options: Mapping[str, Any]
    """The options of the protocol, and the image size: splits, mode, way, shot, tasks, seed ..."""
    learner: Mapping[str, Any]
    """`learners.methods.catalogue.LearnerInfo.described()`, and "tasks": the episodes that it was trained on."""
    shards: str
    scores: tuple[DatasetScore, ...]
    averages: tuple[AverageScore, ...]
    cost: AdaptationCost
    calibration: tuple[CalibrationScore, ...] = ()
    """Of each dataset; a second time at the fitted temperature, if there is one."""
    notes: tuple[str, ...] = ()
    """What is missing, or makes the figures incomparable."""
    format: str = field(default=EVALUATION_FORMAT)

    def save(self, folder: Path) -> Path:
        """Write `evaluation.json`, whole or not at all, and return its path."""
        path = folder / EVALUATION_FILE
        write_atomically(path, (json.dumps(asdict(self), indent=1) + "\n").encode())
        return path

    @classmethod
    def load(cls, file_or_folder: Path) -> EvaluationResult:
        """Read a result from its file, or from the folder that holds it."""
        path = file_or_folder / EVALUATION_FILE if file_or_folder.is_dir() else file_or_folder
        if not path.is_file():
            raise SourceMissing(
                f"{file_or_folder} is no evaluation: needed {EVALUATION_FILE}; python -m learners.evaluate makes one"
            )
        cure = "evaluate again"
        values = read_json(path, cure=cure)
        written = values.get("format") if isinstance(values, dict) else None
        if written != EVALUATION_FORMAT:
            raise IntegrityError(
                f"{path} has the format {written!r} and {EVALUATION_FORMAT!r} is needed; {cure}"
            )
        where = f"{path} is damaged, {cure}"
        result = typed(values, cls, where)
        for values in (result.options, result.learner):
            numbers = {f.name: values.get(f.name) for f in fields(KnownNumbers)}
            typed(numbers, KnownNumbers, where)
        return result
