"""The tasks of an evaluation: those of each dataset, and the key of each task on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from learners.evaluate.records import DatasetScore, TaskAnswers
from learners.evaluate.scores import accuracy_scores
from pipeline.episodes import Sampler
from pipeline.records import Split

Scorer: TypeAlias = Callable[[Sequence[TaskAnswers], str], tuple[DatasetScore, ...]]
"""Turns the answers to a dataset's tasks, and the dataset's name, into its scores."""


class TaskKey(NamedTuple):
    """The key of one task."""

    dataset: str
    mode: str
    number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetTasks:
    """The tasks of one dataset; of ORBIT, in one mode."""

    dataset: str
    sampler: Sampler
    """Its episodes 0 to `tasks` - 1 are the tasks."""
    tasks: int
    split: Split
    """The split that the classes are from; "" for all classes."""
    group: str = ""
    """VTAB: natural, specialised or structured. ORBIT: the mode."""
    scorer: Scorer = accuracy_scores
    clip: int = 1
    """Frames of a clip."""
    by_video: bool = False
    """ORBIT: keep the answers to each query video, frame by frame."""
    challenge: bool = False
    """ORBIT since 2022: also write the result file of the benchmark's challenge."""

    @property
    def mode(self) -> str:
        """ORBIT's mode; "" under other protocols, which have a dataset once."""
        return self.group if self.by_video else ""

    @property
    def keys(self) -> list[TaskKey]:
        """The keys of all tasks, in order."""
        return [TaskKey(self.dataset, self.mode, number) for number in range(self.tasks)]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSet:
    """All tasks of a protocol on a shard set."""

    datasets: tuple[DatasetTasks, ...]
    averages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """For each average its name and the datasets it is over, present or not."""
    notes: tuple[str, ...] = ()
    """Ways in which the tasks fall short of the protocol."""
