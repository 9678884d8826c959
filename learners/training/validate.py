"""Validation: accuracy on episodes of the validation split, and when weights count as better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch

from learners.evaluate.answers import answer_task
from learners.evaluate.scores import frame_accuracy, mean_interval
from learners.evaluate.task_set import DatasetTasks
from learners.learner import MetaLearner
from learners.networks.chunk_sizes import ChunkSizes, halving
from learners.processes import ProcessGroup
from learners.training.components import make_sampler, open_loader, passage
from learners.training.config import TrainingConfig
from pipeline.errors import UsageError, first_few
from pipeline.index import Dataset
from pipeline.loader.episode import Episode
from pipeline.records import Split
from pipeline.shardset import ShardSet


class ValidationScore(NamedTuple):
    """Mean accuracy over episodes, and the half-width of its 95 % interval."""

    accuracy: float
    interval: float
    chance: float
    """The accuracy of guessing."""

    @classmethod
    def of(cls, accuracies: Sequence[float], chances: Sequence[float]) -> ValidationScore:
        """The score of tasks, each with its accuracy and its chance level."""
        mean, half = mean_interval(accuracies)
        return cls(mean, half, math.fsum(chances) / len(chances))

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} ± {self.interval:.1%} (chance {self.chance:.1%})"


def validate(
    learner: MetaLearner,
    shards: ShardSet,
    config: TrainingConfig,
    processes: ProcessGroup,
    *,
    split: Split,
    seed: int,
) -> dict[str, ValidationScore]:
    """The score on each dataset that has the split."""
    scores, sizes = {}, config.chunks
    limits = replace(
        config,
        max_way=config.validation_max_way or config.max_way,
        max_support=config.validation_max_support or config.max_support,
    )
    for name in validation_names(shards, config, split):
        sampler = make_sampler(shards, limits, split, seed, (name,))
        part = DatasetTasks(
            dataset=name, sampler=sampler, tasks=config.validation_tasks, split=split,
            by_video=bool(config.orbit),
        )  # fmt: skip
        count = len(range(processes.rank, config.validation_tasks, processes.size))
        told = []
        with open_loader(shards, sampler, config, processes) as loader:
            for episode in islice(loader, count):
                score = partial(accuracy, learner, episode, part, shards[name], config)
                own, sizes = halving(score, sizes, fixed=learner.chunks_decide)
                told.append((own, 1 / episode.way))
        pairs = processes.gather(torch.tensor(told, dtype=torch.float64).flatten()).view(-1, 2)
        scores[name] = ValidationScore.of(*pairs.T.tolist())
    return scores


def validation_names(shards: ShardSet, config: TrainingConfig, split: Split) -> list[str]:
    """The datasets to validate on: those asked for, or all that have the split."""
    having = shards.with_split(split)
    if missing := [name for name in config.validation_datasets if name not in having]:
        raise UsageError(
            f"--validation-datasets names {first_few(missing)}, and {shards.root} has no {split} classes of "
            f"that name; it has {first_few(having) or 'none'}"
        )
    return list(config.validation_datasets or having)


def accuracy(
    learner: MetaLearner,
    episode: Episode,
    part: DatasetTasks,
    dataset: Dataset,
    config: TrainingConfig,
    sizes: ChunkSizes,
) -> float:
    """The accuracy on an episode's queries after adapting to its support set, in chunks of these sizes.

    ORBIT: the mean over videos of their frame accuracy, by which the paper chooses weights.
    """
    found = answer_task(learner, episode, part, dataset, passage(config).resized(sizes))
    if not found.videos:
        return found.accuracy
    return math.fsum(map(frame_accuracy, found.videos)) / len(found.videos)


def better(scores: Mapping[str, ValidationScore], best: Mapping[str, float]) -> bool:
    """The papers' rule: at least half of the datasets improve on the stored best, which is then replaced."""
    improved = sum(score.accuracy > best.get(name, -1.0) for name, score in scores.items())
    return improved >= math.ceil(len(scores) / 2)
