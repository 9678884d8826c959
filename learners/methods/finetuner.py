"""FineTuner: a linear layer trained on each task's support set, on features of a frozen backbone.

It learns nothing from other tasks, so it is the baseline that meta-learning has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from learners.heads.base import State
from learners.heads.linear import LinearHead
from learners.labels import Labels
from learners.learner import MetaLearner
from learners.methods.descent import Step, SupportDescent, SupportLoss, descended_classifier, new_linear_state
from learners.networks import Backbone
from learners.networks.film import identity_film
from learners.task import ChunkedPass, Classifier
from pipeline.errors import UsageError, check_choice

FINETUNER_STEPS: Final = 50
OPTIMIZER_RATES: Final = {"sgd": 0.1, "adam": 0.001}


class FineTuner(MetaLearner):
    """A head that starts at zero and, if `film` is set, FiLM that starts as the identity.

    Without FiLM the support features are computed once, and the steps cost next to nothing. The backbone stays
    frozen.

    optimizer: "sgd" (plain) as in 2021, or "adam" as in ORBIT's later code; lr: None is the papers'.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        film: bool = False,
        optimizer: str = "sgd",
        lr: float | None = None,
        descent: SupportDescent | None = None,
    ) -> None:
        check_choice(optimizer, tuple(OPTIMIZER_RATES), "the optimizer")
        if film and not backbone.film_channels:
            raise UsageError("fine-tuning FiLM needs a backbone made with film=True")
        super().__init__(backbone.requires_grad_(requires_grad=False), LinearHead())
        self.film = film
        self.optimizer = optimizer
        self.lr = OPTIMIZER_RATES[optimizer] if lr is None else lr
        self.descent = descent or SupportDescent(FINETUNER_STEPS)
        self.inner_steps = self.descent.steps

    @property
    def chunks_decide(self) -> bool:
        return super().chunks_decide or self.descent.weighting == "paper"

    def fit(self, images: Tensor, labels: Labels, passage: ChunkedPass) -> Classifier:
        """Train the head, and FiLM if set, on the support set."""
        state, answers = new_linear_state(self.backbone, labels)
        film: tuple[Tensor, ...] = ()
        if self.film:
            film = identity_film(self.backbone.film_channels, state[0].detach())
            film = tuple(tensor.requires_grad_() for tensor in film)
        logits = self._logits(images, film, state, passage)
        self.descent.run(
            [*film, *state], self._step([*film, *state]), SupportLoss(logits, answers, passage.units)
        )
        return descended_classifier(self.backbone, film, state, passage)

    def _logits(
        self, images: Tensor, film: tuple[Tensor, ...], state: State, passage: ChunkedPass
    ) -> Callable[[Tensor], Tensor]:
        if not film:
            features = passage.whole(self.backbone, images)  # constant over the steps
            return lambda units: LinearHead().logits(state, features[units.to(features.device)])

        def logits(units: Tensor) -> Tensor:
            (part,) = passage.parts(images, units)
            return LinearHead().logits(state, passage.run(self.backbone, part, film))

        return logits

    def _step(self, parameters: Sequence[Tensor]) -> Step:
        kind = torch.optim.SGD if self.optimizer == "sgd" else torch.optim.Adam
        optimizer = kind(parameters, lr=self.lr)

        def step(gradients: Sequence[Tensor]) -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

        return step
