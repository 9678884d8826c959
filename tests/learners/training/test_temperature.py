"""The temperature that a run begins with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from learners.heads.base import State
from learners.heads.prototypes import EuclideanPrototypes
from learners.learner import StagedLearner
from learners.networks.backbones import backbone
from learners.processes import ProcessGroup
from learners.training.config import TrainingConfig
from learners.training.temperature import fit_temperature
from pipeline.errors import UsageError
from pipeline.shardset import ShardSet
from tests.learners.evaluate.tiny import SIZE, glyphs

pytestmark = pytest.mark.usefixtures("one_thread")


class FarthestPrototypes(EuclideanPrototypes):
    """The class whose mean is farthest: wrong more often than guessing."""

    def logits(self, state: State, queries: Tensor) -> Tensor:
        return -super().logits(state, queries)


def test_features_that_tell_nothing_are_an_error_that_names_the_flag(tmp_path: Path) -> None:
    shards = ShardSet.open(glyphs(tmp_path))
    config = TrainingConfig(
        shards=shards.root, learner="protonets", backbone="conv4", image_size=SIZE, way=3, shot=2, query=3,
        threads=1, device="cpu",
    )  # fmt: skip
    torch.manual_seed(0)
    learner = StagedLearner(backbone("conv4"), FarthestPrototypes())
    with pytest.raises(UsageError, match="no better than chance; leave --fit-temperature out"):
        fit_temperature(learner, shards, config, ProcessGroup(0, 1, torch.device("cpu")))
