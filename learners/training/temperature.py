"""The temperature at which prototypes begin: the one that fits the first features.

Features of pretrained networks lie apart by what their weights and the images' size happen to make of them.
Where a softmax is far sharper than its answers are right, the shortest way to a lower loss is to shrink the
features, and training does that before it learns anything (docs/log.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from learners.methods.protonets import ProtoNets
from learners.processes import Team
from learners.training.components import make_sampler, open_loader, passage
from learners.training.config import Config
from pipeline.errors import UsageError
from pipeline.shardset import ShardSet

EPISODES: Final = 4  # the first of training; their queries tell the temperature to a few per cent
SHARPEST, DULLEST = 1e-6, 1e9  # between which it is looked for
HALVINGS: Final = 60


def fit_temperature(learner: ProtoNets, shards: ShardSet, config: Config, team: Team) -> None:
    """Set the temperature of the least loss on the first episodes' queries; the same for all processes."""
    sampler = make_sampler(shards, config, "train", config.seed, config.datasets)
    alone = replace(team, rank=0, size=1)  # every process looks at the same episodes
    asked = []
    learner.temperature = 1
    with open_loader(shards, sampler, config, alone) as loader:
        for episode in islice(loader, EPISODES):
            support, clip = episode.support, episode.plan.clip
            clips = replace(passage(config), clip=clip)
            classify = learner.adapt(support.images, support.labels, episode.way, clips)
            scores = torch.cat([classify.logits(chunk.images) for chunk in episode.query])
            asked.append((scores, episode.query.labels[::clip]))
    found = team.gather(torch.tensor([fitting(asked)], dtype=torch.float64))[0]
    learner.temperature = float(found)


def said(learner: ProtoNets, config: Config) -> str:
    """What a run tells of its temperature."""
    own = config.weights and not (config.temperature or config.fit_temperature)
    advice = "; from pretrained weights --fit-temperature learns more" if own else ""
    return f"temperature {learner.temperature:.3g}{advice}"


def fitting(asked: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The temperature of the least mean loss, to three digits; from logits at temperature 1, and labels.

    The labels are believed but for one of them, which could be any class (Platt's targets): so a softmax that is
    always right has a finite temperature, too. The loss is convex in 1 / temperature, and its slope has one zero.
    """
    doubt = 1 / (1 + sum(len(labels) for _, labels in asked))
    pairs = [(scores.double().cpu(), labels.cpu()) for scores, labels in asked]

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
