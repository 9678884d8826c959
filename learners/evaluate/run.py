"""An evaluation under way: the tasks that are left, this process's share of them, and their answers.

A task's number decides which process answers it, and the answers depend on the task alone: they are the
same for any number of processes, and for processes that go on where others stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from learners.evaluate.answers import TaskScores, score_queries, score_task, task_answers, timed_adapt
from learners.evaluate.features import BlockSampler, FeatureTable, shared_blocks
from learners.evaluate.ledger import TaskLedger, begin_or_resume
from learners.evaluate.records import TaskAnswers
from learners.evaluate.task_set import DatasetTasks, TaskKey, TaskSet
from learners.evaluate.validation_temperature import fitted_temperature
from learners.learner import MetaLearner, StagedLearner
from learners.networks.chunk_sizes import ChunkSizes, halving
from learners.processes import ProcessGroup
from learners.task import ChunkedPass
from pipeline.command import ProgressBar
from pipeline.decoders.choose import DecoderName
from pipeline.episodes import EpisodePlan, Sampler
from pipeline.loader.episode import Episode
from pipeline.loader.loader import EpisodeLoader
from pipeline.shardset import ShardSet


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationSettings:
    """How images are read and passed.

    Apart from the image size figures depend on it by rounding alone, unless an option of the learner is of chunks.
    """

    image_size: int
    passage: ChunkedPass
    decoder: DecoderName = "auto"
    threads: int | None = None
    share: bool = True
    """Pass an image once for all tasks that show it, where its features are the same in all."""


@dataclass(frozen=True, slots=True)
class SamplerSubset:
    """A sampler of some of another sampler's episodes."""

    sampler: Sampler
    numbers: Sequence[int]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, position: int, /) -> EpisodePlan:
        return self.sampler[self.numbers[position]]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class EvaluationRun:
    """A learner, its tasks, and the processes that work on them."""

    learner: MetaLearner
    task_set: TaskSet
    shards: ShardSet
    settings: EvaluationSettings
    processes: ProcessGroup
    validation_set: TaskSet | None = None
    """The tasks of validation classes that a temperature is fitted to; None fits none."""
    halvings: list[ChunkSizes] = field(default_factory=list)
    """The sizes of chunks after each time that memory ran out."""

    @property
    def sizes(self) -> ChunkSizes:
        """The images that pass at a time now."""
        return self.halvings[-1] if self.halvings else self.settings.passage.sizes

    def note_sizes(self, sizes: ChunkSizes) -> None:
        """Go on in chunks of these sizes."""
        if sizes != self.sizes:
            self.halvings.append(sizes)

    def answers(self, folder: Path, resume_settings: Mapping[str, Any]) -> list[TaskAnswers]:
        """Answer this process's tasks that are left; the leading process returns all tasks, in order."""
        processes = self.processes
        with processes.hold(folder):
            begin_or_resume(folder, resume_settings, leads=processes.leads)
            processes.any(False)  # noqa: FBT003 - all have read the folder before any of them writes
            temperature = (
                fitted_temperature(self._validation_scores, processes, folder)
                if self.validation_set
                else None
            )
            return self._finish(folder, temperature)

    def _validation_scores(self) -> Iterator[tuple[Tensor, Tensor]]:
        for tasks in self.validation_set.datasets if self.validation_set else ():
            for scores in self.scores(tasks, range(tasks.tasks), warm=True):
                yield scores.pairs()

    def _finish(self, folder: Path, temperature: float | None) -> list[TaskAnswers]:
        """Answer what is left of this process's share; the leading process waits for the others'."""
        processes = self.processes
        keys = [key for own in self.task_set.datasets for key in own.keys]
        with TaskLedger(folder, processes.rank) as ledger:
            finished = ledger.tasks().keys()
            left = [key for key in keys[processes.rank :: processes.size] if key not in finished]
            quiet = not processes.leads
            with ProgressBar("evaluate", len(left), quiet=quiet, unit="task") as progress:
                for task in self._answer(left, temperature):
                    ledger.add(task)
                    progress.advance(1, task.dataset)
            if not processes.leads:
                return []
            answered = ledger.wait(set(keys))
        return [answered[key] for key in keys]

    def _answer(self, left: Sequence[TaskKey], temperature: float | None) -> Iterator[TaskAnswers]:
        warm = False
        for tasks in self.task_set.datasets:
            numbers = [key.number for key in left if key[:2] == (tasks.dataset, tasks.mode)]
            dataset = self.shards[tasks.dataset]
            for scores in self.scores(tasks, numbers, warm=warm):
                yield task_answers(tasks, dataset, scores, temperature)
                warm = True

    def scores(self, tasks: DatasetTasks, numbers: Sequence[int], *, warm: bool) -> Iterator[TaskScores]:
        """Score the numbered tasks of a dataset; without `warm` the first is adapted to twice.

        The first pass of all takes longer and would spoil the seconds.
        """
        learner, blocks = self.learner, None
        if numbers and self.settings.share and isinstance(learner, StagedLearner):
            dataset, passage = self.shards[tasks.dataset], self.settings.passage
            blocks = shared_blocks(learner, tasks, numbers, dataset, passage)
            if blocks is not None:
                yield from self._score_shared(learner, tasks, numbers, blocks)
        if numbers and blocks is None:
            yield from self._score_streamed(tasks, numbers, warm=warm)

    def _score_streamed(
        self, tasks: DatasetTasks, numbers: Sequence[int], *, warm: bool
    ) -> Iterator[TaskScores]:
        """Score tasks one by one, each from images of its own."""
        with self._open_loader(tasks, SamplerSubset(tasks.sampler, numbers)) as loader:
            for episode in loader:
                score = partial(self._score_episode, tasks, episode, warm=warm)
                scores, sizes = halving(score, self.sizes, fixed=self.learner.chunks_decide)
                self.note_sizes(sizes)
                yield scores
                warm = True

    def _score_episode(
        self, tasks: DatasetTasks, episode: Episode, sizes: ChunkSizes, *, warm: bool
    ) -> TaskScores:
        """Score a task in chunks of these sizes."""
        passage = self.settings.passage.resized(sizes)
        if not warm:
            clips = replace(passage, clip=episode.plan.clip)
            timed_adapt(self.learner, episode.support.images, episode.support.labels, clips)
        return score_task(self.learner, episode, self.shards[tasks.dataset], passage)

    def _score_shared(
        self, learner: StagedLearner, tasks: DatasetTasks, numbers: Sequence[int], blocks: BlockSampler
    ) -> Iterator[TaskScores]:
        """Score tasks from features that they share."""
        dataset = self.shards[tasks.dataset]
        with self._open_loader(tasks, blocks) as loader:
            table = FeatureTable(learner, blocks, loader, self.settings.passage.resized(self.sizes))
        self.note_sizes(table.sizes)
        for number in numbers:
            plan = tasks.sampler[number]
            classifier, seconds = table.adapt(plan)
            features = table.query_features(plan)
            yield TaskScores(plan, score_queries(classifier, plan, dataset, features), seconds)

    def _open_loader(self, tasks: DatasetTasks, sampler: Sampler) -> EpisodeLoader:
        settings = self.settings
        return EpisodeLoader(
            replace(self.shards, datasets={tasks.dataset: self.shards[tasks.dataset]}), sampler,
            image_size=settings.image_size, h=0, device=self.processes.device,
            decoder=settings.decoder, threads=settings.threads,
        )  # fmt: skip


def hash_weights(net: nn.Module) -> str:
    """A SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
