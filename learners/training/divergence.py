"""Training that diverges: weights that give no finite answers are not saved, and the error says what is there."""

from __future__ import annotations

from dataclasses import replace

import torch

from learners.learner import MetaLearner
from learners.training.components import passage
from learners.training.config import TrainingConfig
from pipeline.errors import IntegrityError
from pipeline.loader.episode import Episode


@torch.no_grad()
def answers_finite(learner: MetaLearner, episode: Episode, config: TrainingConfig) -> bool:
    """Whether the weights are finite, and the logits of some of an episode's queries too.

    Weights of 1e30 are finite numbers, and nothing comes of them any more.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in learner.state_dict().values()):
        return False
    clips, support = replace(passage(config), clip=episode.plan.clip), episode.support
    classifier = learner.adapt(support.images, support.labels, episode.way, clips)
    few = episode.query.images[: clips.units * clips.clip]
    return bool(classifier.logits(few).isfinite().all())


def diverged(how: str, saved: int) -> IntegrityError:
    """The error of a run that diverged; its last checkpoint is of so many episodes, or 0 if there is none."""
    kept = (
        f"the last checkpoint has those after {saved:,} episodes" if saved else "there is no checkpoint yet"
    )
    return IntegrityError(
        f"{how}: training diverged. Such weights are not saved, {kept}; try a lower --lr in another run, or "
        "in place of float16, whose numbers end at 65,504, another --precision"
    )
