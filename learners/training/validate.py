"""How good a learner is on episodes it was not trained on, and when it counts as better."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import nn

from learners.evaluate.answers import answer
from learners.evaluate.scores import frame_accuracy, interval
from learners.evaluate.work import Part
from learners.processes import Team
from learners.training.components import make_sampler, open_loader, passage
from learners.training.config import Config
from pipeline.index import Dataset
from pipeline.loader.episode import Episode
from pipeline.records import Split
from pipeline.shardset import ShardSet


class Score(NamedTuple):
    """Mean accuracy over episodes, and the half-width of its 95 % interval."""

    accuracy: float
    interval: float
    chance: float
    """What guessing would come to."""

    @classmethod
    def of(cls, accuracies: Sequence[float], chances: Sequence[float]) -> Score:
        """Of so many tasks, each with its chance."""
        mean, half = interval(accuracies)
        return cls(mean, half, math.fsum(chances) / len(chances))

    def __str__(self) -> str:
        return f"{self.accuracy:.1%} ± {self.interval:.1%} (chance {self.chance:.1%})"


def validate(
    learner: nn.Module, shards: ShardSet, config: Config, team: Team, *, split: Split, seed: int
) -> dict[str, Score]:
    """The score on each dataset that has the split; each episode is adapted to and asked once."""
    scores = {}
    for name in shards.with_split(split):
        sampler = make_sampler(shards, config, split, seed, (name,))
        part = Part(dataset=name, sampler=sampler, tasks=config.validation_tasks, split=split)
        count = len(range(team.rank, config.validation_tasks, team.size))
        with open_loader(shards, sampler, config, team) as loader:
            told = [
                (accuracy(learner, episode, part, shards[name], config), 1 / episode.way)
                for episode in islice(loader, count)
            ]
        pairs = team.gather(torch.tensor(told, dtype=torch.float64).flatten()).view(-1, 2)
        scores[name] = Score.of(*pairs.T.tolist())
    return scores


def accuracy(
    learner: nn.Module, episode: Episode, part: Part, dataset: Dataset, config: Config
) -> float:
    """The share of an episode's queries that a classifier of its support set gets right.

    ORBIT: the mean over videos of the share of their frames, by which the paper chooses weights.
    """
    found = answer(learner, episode, part, dataset, passage(config))
    if not found.videos:
        return found.accuracy
    return math.fsum(map(frame_accuracy, found.videos)) / len(found.videos)


def better(scores: Mapping[str, Score], best: Mapping[str, float]) -> bool:
    """The papers' rule: at least half of the datasets improve on the stored best, which is then replaced."""
    improved = sum(score.accuracy > best.get(name, -1.0) for name, score in scores.items())
    return improved >= math.ceil(len(scores) / 2)
