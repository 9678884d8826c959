"""The chunks of a run: chosen before its first step, halved where memory runs out, the same in all processes."""

from __future__ import annotations

from learners.learner import MetaLearner
from learners.networks.arithmetic import autocast_dtype
from learners.networks.chunk_sizes import ChunkSizes
from learners.processes import ProcessGroup
from learners.training.components import lite_settings
from learners.training.config import TrainingConfig


def choose_chunks(config: TrainingConfig, learner: MetaLearner, processes: ProcessGroup) -> ChunkSizes:
    """The chunks that the settings name or, with `auto`, the largest that fit in every process."""
    if config.chunk != "auto" or lite_settings(config).paper:
        return config.chunks
    sizes = learner.chunk_sizes(
        config.image_size, precision=autocast_dtype(config.precision), training=True,
        memory=config.chunk_memory * 1e9 or None,
    )  # fmt: skip
    return ChunkSizes(*processes.least(sizes))


def are_fixed(config: TrainingConfig, learner: MetaLearner) -> bool:
    """Whether the gradient depends on the chunks by more than rounding, so that they stay what they are."""
    return lite_settings(config).paper or learner.chunks_decide
