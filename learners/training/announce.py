"""What a run says: before its first step what learns, by which settings, and what is wrong with them; then each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    config: TrainingConfig, learner: MetaLearner, shards: ShardSet, sampler: Sampler, processes: int
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
    if processes > 1:  # a process that waits for a lost one cannot say this then
        yield f"{processes} processes: if one is lost all end, and the same torchrun with --resume {config.folder} goes on"


def step_line(tasks: int, total: int, values: Mapping[str, float]) -> str:
    """The line of a step, after so many of the run's episodes."""
    return (
        f"{tasks:>7,}/{total:,}  loss {values['loss']:.3f}  accuracy {values['accuracy']:6.1%}  "
        f"{values['episodes_per_second']:.2f} episodes/s  {values['images_per_second']:,.0f} images/s  "
        f"waiting for data {values['waiting']:.0%}  {values['memory_mb']:,.0f} MB"
    )
