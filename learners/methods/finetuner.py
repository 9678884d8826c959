"""FineTuner: a linear layer trained on each task's support set, on features of weights as they are.

It learns nothing from other tasks, so it is what meta-learning has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from PIL import Image
from torch import Tensor, nn

from learners.heads.base import State
from learners.heads.linear import Linear
from learners.learner import Classifier, Passage
from learners.methods.descent import Descent, Loss, Step, begin, classifier, support
from learners.networks import Backbone
from learners.networks.film import identity
from pipeline.errors import UsageError, check_choice

STEPS: Final = 50
RATES: Final = {"sgd": 0.1, "adam": 0.001}


class FineTuner(nn.Module):
    """A head that begins at zero, and FiLM that begins by changing nothing, if `film` is set.

    Without FiLM the features of the support set are computed once, and the steps cost next to nothing.
    The backbone is frozen for good.

    optimizer: "sgd" (plain) as in 2021, or "adam" as in ORBIT's later code; lr: None is the papers'.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        film: bool = False,
        optimizer: str = "sgd",
        lr: float | None = None,
        descent: Descent | None = None,
    ) -> None:
        super().__init__()
        check_choice(optimizer, tuple(RATES), "the optimizer")
        if film and not backbone.film_channels:
            raise UsageError("fine-tuning FiLM needs a backbone made with film=True")
        self.backbone = backbone.requires_grad_(requires_grad=False)
        self.film = film
        self.optimizer = optimizer
        self.lr = RATES[optimizer] if lr is None else lr
        self.descent = descent or Descent(STEPS)

    def adapt(
        self,
        images: Tensor | Sequence[Image.Image],
        labels: Tensor | Sequence[int],
        way: int | None = None,
        passage: Passage | None = None,
    ) -> Classifier:
        """The task's classifier."""
        passage = passage or Passage()
        pixels, known = support(images, labels, way, passage)
        state, answers = begin(self.backbone, known)
        film: tuple[Tensor, ...] = ()
        if self.film:
            film = identity(self.backbone.film_channels, state[0].detach())
            film = tuple(tensor.requires_grad_() for tensor in film)
        logits = self._logits(pixels, film, state, passage)
        self.descent.run(
            [*film, *state], self._step([*film, *state]), Loss(logits, answers, passage.units)
        )
        return classifier(self.backbone, film, state, passage)

    def _logits(
        self, images: Tensor, film: tuple[Tensor, ...], state: State, passage: Passage
    ) -> Callable[[Tensor], Tensor]:
        if not film:
            features = passage.whole(self.backbone, images)  # they do not change
            return lambda units: Linear().logits(state, features[units.to(features.device)])

        def logits(units: Tensor) -> Tensor:
            (part,) = passage.parts(images, units)
            return Linear().logits(state, passage.run(self.backbone, part, film))

        return logits

    def _step(self, parameters: Sequence[Tensor]) -> Step:
        kind = torch.optim.SGD if self.optimizer == "sgd" else torch.optim.Adam
        optimizer = kind(parameters, lr=self.lr)

        def step(gradients: Sequence[Tensor]) -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()

        return step
