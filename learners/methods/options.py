"""Options that distinguish learners of one name, such as the papers' set encoder from ours."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, Literal

from learners.networks.set_encoder import EncoderNorm
from pipeline.errors import UsageError
from pipeline.settings import flag_name, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerOptions:
    """What a learner's name leaves open; a checkpoint keeps it."""

    encoder_norm: EncoderNorm = setting(
        "example",
        "of the set encoder; batch: the papers', with the statistics of the current batch; stored: with those "
        "of its weights, as ORBIT's code since 2022",
    )
    encoder_size: int = setting(
        84, "pixels that the set encoder pools images to; 0: their own, as the papers"
    )
    encoder_pixels: Literal["symmetric", "imagenet", "backbone"] = setting(
        "symmetric",
        "pixels that the set encoder sees: -1 to 1, or normalised by ImageNet's statistics, or as the backbone's",
    )
    backbone_norm: Literal["example", "batch"] = setting(
        "example",
        "protonets, lda: BatchNorm of the backbone in training; batch: with the statistics of the current batch, as "
        "ORBIT's code trains it",
    )
    film_places: str = setting(
        "",
        "with FiLM: 'all' norms take it, or those that a regular expression matches; '' is the papers' choice",
    )
    one_shot: Literal["zero", "official"] = setting(
        "zero", "simple_cnaps: covariance of a class with one image; official: the papers' codes'"
    )
    logistic_c: float = setting(0.0, "logreg: one over the strength of its penalty (10)")
    inner_steps: int = setting(0, "maml, finetuner: gradient steps in each task (the papers' 15 and 50)")
    inner_lr: float = setting(
        0.0,
        "learning rate of these steps (the papers': maml 0.001, finetuner 0.1 with sgd and 0.001 with adam)",
    )
    inner_backbone_lr: float = setting(0.0, "maml: that of the backbone (the papers' 0.0001)")
    inner_optimizer: Literal["", "sgd", "adam"] = setting(
        "", "finetuner: of these steps (sgd; adam of finetuner_film)"
    )
    inner_weighting: Literal["whole", "paper"] = setting(
        "whole",
        "of support chunks in these steps: the gradient of the mean over all images; or the sum of k chunks' "
        "means, which is k times as long, as ORBIT's code of 2021",
    )
    clamp: float = setting(0.0, "maml, in training: bound on each element of a task's gradient (none)")

    @property
    def options(self) -> LearnerOptions:
        """These options alone, where they are part of other settings."""
        return LearnerOptions(**{name: getattr(self, name) for name in OPTION_NAMES})

    def differing(self) -> dict[str, str | float]:
        """The options that differ from their defaults, by name."""
        values = {name: getattr(self, name) for name in OPTION_NAMES}
        return {name: value for name, value in values.items() if value != getattr(DEFAULT_OPTIONS, name)}

    def changed(self) -> set[str]:
        """The names of the options that differ from their defaults."""
        return set(self.differing())

    def check_for(self, learner: str, applicable: frozenset[str]) -> None:
        """Refuse options that the learner does not have, and numbers out of range."""
        for name, value in sorted(self.differing().items()):
            if name not in applicable:
                raise UsageError(f"{flag_name(name)} does not apply to {learner}; leave it out")
            if isinstance(value, int | float) and not 0 <= value < math.inf:
                raise UsageError(f"{flag_name(name)} is a positive number, or 0, got {value}")


DEFAULT_OPTIONS: Final = LearnerOptions()
OPTION_NAMES: Final = tuple(f.name for f in fields(LearnerOptions))
ENCODER_OPTIONS: Final = frozenset({"encoder_norm", "encoder_size", "encoder_pixels", "film_places"})
DESCENT_OPTIONS: Final = frozenset({"inner_steps", "inner_lr", "inner_weighting"})
