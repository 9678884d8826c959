"""What a run says before its first step: what learns, by which settings, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from learners.evaluate.overlap import training_on_tests
from learners.learner import MetaLearner
from learners.methods.catalogue import WITH_TEMPERATURE
from learners.runs import describe_preset
from learners.training.config import TrainingConfig
from learners.training.preset_choice import data_warnings
from learners.training.temperature import describe_temperature
from pipeline.episodes import Sampler
from pipeline.shardset import ShardSet

FROZEN_RANDOM: Final = "warning: THE BACKBONE IS FROZEN AND ITS WEIGHTS ARE RANDOM; its features mean nothing"


def opening_lines(
    config: TrainingConfig, learner: MetaLearner, shards: ShardSet, sampler: Sampler
) -> Iterator[str]:
    """The first lines of a run's log."""
    learning = sum(p.numel() for p in learner.parameters() if p.requires_grad)
    yield f"{config.folder}: {learning:,} parameters learn, {sampler!r}"
    if config.preset:
        yield describe_preset(config.preset, config.overridden)
        yield from data_warnings(shards, config.preset, config.preset_datasets)
    if tested := training_on_tests(shards, config.datasets, orbit=bool(config.orbit)):
        yield f"warning: {tested}"
    if config.frozen_random:
        yield FROZEN_RANDOM
    if config.learner in WITH_TEMPERATURE:
        yield describe_temperature(learner, config)
