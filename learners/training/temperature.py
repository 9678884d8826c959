"""The initial temperature of prototype heads, fitted to the first episodes.

How far apart features of a pretrained network lie depends on its weights and the image size. Where the softmax is
far sharper than its answers are right, the shortest way to a lower loss is to shrink the features, and training
does that before it learns anything (docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from learners.heads.prototypes import PrototypeHead
from learners.learner import MetaLearner
from learners.processes import ProcessGroup
from learners.training.components import make_sampler, open_loader, passage
from learners.training.config import TrainingConfig
from pipeline.errors import UsageError
from pipeline.shardset import ShardSet

FITTED_EPISODES: Final = 4  # episodes; their queries determine the temperature to a few per cent
SHARPEST, DULLEST = 1e-6, 1e9  # the range that is searched
HALVINGS: Final = 60


def fit_temperature(
    learner: MetaLearner, shards: ShardSet, config: TrainingConfig, processes: ProcessGroup
) -> None:
    """Set the temperature with the least loss on the first episodes' queries; equal in all processes."""
    sampler = make_sampler(shards, config, "train", config.seed, config.datasets)
    alone = replace(processes, rank=0, size=1)  # every process looks at the same episodes
    scored = []
    assert isinstance(learner.head, PrototypeHead)
    learner.head.set_temperature(1)
    with open_loader(shards, sampler, config, alone) as loader:
        for episode in islice(loader, FITTED_EPISODES):
            support, clip = episode.support, episode.plan.clip
            clips = replace(passage(config), clip=clip)
            classify = learner.adapt(support.images, support.labels, episode.way, clips)
            scores = torch.cat([classify.logits(chunk.images) for chunk in episode.query])
            scored.append((scores, episode.query.labels[::clip]))
    fitted = processes.gather(torch.tensor([best_temperature(scored)], dtype=torch.float64))[0]
    learner.head.set_temperature(float(fitted))


def describe_temperature(learner: MetaLearner, config: TrainingConfig) -> str:
    """A line about the temperature for the run's log."""
    assert isinstance(learner.head, PrototypeHead)
    own = config.weights and not (config.temperature or config.fit_temperature)
    advice = "; from pretrained weights --fit-temperature learns more" if own else ""
    return f"temperature {float(learner.head.temperature):.3g}{advice}"


def best_temperature(scored: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The temperature with the least mean loss, to three digits, from logits at temperature 1 and labels.

    One of the labels counts as drawn from all classes (Platt's targets), so that a softmax that is always right
    has a finite temperature, too. The loss is convex in 1 / temperature, and its slope has one zero.
    """
    doubt = 1 / (1 + sum(len(labels) for _, labels in scored))
    pairs = [(scores.double().cpu(), labels.cpu()) for scores, labels in scored]

    def slope(sharpness: float) -> float:
        total = 0.0
        for scores, labels in pairs:
            right = scores.gather(1, labels[:, None])[:, 0]
            wanted = (1 - doubt) * right + doubt * scores.mean(1)
            total += float((((scores * sharpness).softmax(1) * scores).sum(1) - wanted).mean())
        return total

    low, high = math.log(1 / DULLEST), math.log(1 / SHARPEST)
    if slope(1 / DULLEST) >= 0:
        raise UsageError(
            "no temperature fits the first episodes: these features tell their classes no better than "
            "chance; leave --fit-temperature out"
        )
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return float(f"{math.exp(-(low + high) / 2):.3g}")
