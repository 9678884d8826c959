"""The initial temperature of prototype heads, fitted to the first episodes.

How far apart features of a pretrained network lie depends on its weights and the image size. Where the softmax is
far sharper than its answers are right, the shortest way to a lower loss is to shrink the features, and training
does that before it learns anything (docs/log.md).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Final

import torch

from learners.heads.prototypes import PrototypeHead
from learners.heads.temperature import best_temperature
from learners.learner import MetaLearner
from learners.processes import ProcessGroup
from learners.training.components import make_sampler, open_loader, passage
from learners.training.config import TrainingConfig
from pipeline.errors import UsageError
from pipeline.shardset import ShardSet

FITTED_EPISODES: Final = 4  # episodes; their queries determine the temperature to a few per cent


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
    best = best_temperature(scored)
    if best is None:
        raise UsageError(
            "no temperature fits the first episodes: these features tell their classes no better than "
            "chance; leave --fit-temperature out"
        )
    learner.head.set_temperature(float(processes.gather(torch.tensor([best], dtype=torch.float64))[0]))


def describe_temperature(learner: MetaLearner, config: TrainingConfig) -> str:
    """A line about the temperature for the run's log."""
    assert isinstance(learner.head, PrototypeHead)
    own = config.weights and not (config.temperature or config.fit_temperature)
    advice = "; from pretrained weights --fit-temperature learns more" if own else ""
    return f"temperature {float(learner.head.temperature):.3g}{advice}"
