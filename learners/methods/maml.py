"""First-order MAML (Finn et al., 2017): initial weights from which a few gradient steps fit any task.

The gradient at the adapted weights stands for the gradient at the initial ones, so no graph of the inner steps is
kept: support and queries pass in chunks, exactly, in the memory of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.base import State
from learners.heads.linear import LinearHead
from learners.labels import Labels
from learners.learner import MetaLearner
from learners.lite.engine import Lite, Outcome
from learners.lite.queries import QueryTally, query_chunks
from learners.methods.descent import SupportDescent, SupportLoss, descended_classifier, new_linear_state
from learners.networks import Backbone
from learners.task import ChunkedPass, Classifier, Images, Task
from pipeline.errors import UsageError

MAML_STEPS: Final = 15


@dataclass(frozen=True, slots=True)
class InnerRates:
    """Learning rates of the inner steps."""

    head: float = 0.001
    backbone: float = 0.0001


class MAML(MetaLearner):
    """A learned backbone; the linear head starts at zero in every task.

    clamp: bound on each element of the accumulated gradient, applied after each chunk of queries (10 in the
    papers; None for no bound).
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        descent: SupportDescent | None = None,
        rates: InnerRates | None = None,
        clamp: float | None = None,
    ) -> None:
        if clamp is not None and clamp <= 0:
            raise UsageError(f"gradients are clamped to a positive number or to none, not {clamp}")
        if backbone.norm == "batch":
            raise UsageError("MAML needs a backbone with norm='example', as the papers use it")
        super().__init__(backbone, LinearHead())
        self.descent = descent or SupportDescent(MAML_STEPS)
        self.inner_steps = self.descent.steps
        self.rates = rates or InnerRates()
        self.clamp = clamp

    @property
    def chunks_decide(self) -> bool:
        return super().chunks_decide or self.descent.weighting == "paper" or self.clamp is not None

    @torch.enable_grad()
    def gradient(
        self,
        task: Task,
        settings: Lite,
        rng: np.random.Generator,  # noqa: ARG002 - all of the support set is used
        *,
        scale: float = 1.0,
    ) -> Outcome:
        """Add `scale` times the gradient of a task's loss to `.grad`; all of the support set is used.

        The parameters have their values back when this returns or raises.
        """
        passage = settings.passage(task.clip)
        labels = Labels.checked(task.labels, task.way, task.clip)
        with self._restored():
            state = self._adapt(self.backbone, task.images, labels, passage)
            tally = QueryTally(task, state[0].device)
            for images, answers in query_chunks(task, passage.units, tally):
                logits = LinearHead().logits(state, passage.run(self.backbone, images))
                loss = functional.cross_entropy(logits, answers, reduction="sum")
                torch.autograd.backward(loss * (scale * task.clip / task.query_count))
                self._clamp()
                tally.add(loss.detach(), (logits.argmax(1) == answers).sum())
        used = len(labels) * self.descent.steps
        return Outcome(*tally.finish(), tally.seen, {"backbone": used}, tally.transfers.seconds)

    def fit(self, images: Tensor, labels: Labels, passage: ChunkedPass) -> Classifier:
        """Adapt a copy of the backbone; the learner itself is unchanged."""
        own = deepcopy(self.backbone)
        state = self._adapt(own, images, labels, passage)
        own.requires_grad_(requires_grad=False)
        return descended_classifier(own, (), state, passage)

    def _adapt(self, backbone: Backbone, images: Images, labels: Labels, passage: ChunkedPass) -> State:
        """Descend a backbone's parameters on the support loss; return the head that goes with them."""
        state, answers = new_linear_state(backbone, labels)
        moving = _trained(backbone)
        rates = [self.rates.backbone] * len(moving) + [self.rates.head] * len(state)

        def logits(units: Tensor) -> Tensor:
            (part,) = passage.parts(images, units)
            return LinearHead().logits(state, passage.run(backbone, part))

        def step(gradients: Sequence[Tensor]) -> None:
            with torch.no_grad():
                for value, gradient, rate in zip([*moving, *state], gradients, rates, strict=True):
                    value.sub_(gradient, alpha=rate)

        self.descent.run([*moving, *state], step, SupportLoss(logits, answers, passage.units))
        return tuple(tensor.detach() for tensor in state)

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """Restore the parameters' values on leaving, also after an error."""
        moving = _trained(self.backbone)
        before = [parameter.detach().clone() for parameter in moving]
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, value in zip(moving, before, strict=True):
                    parameter.copy_(value)

    def _clamp(self) -> None:
        for parameter in _trained(self.backbone):
            if self.clamp is not None and parameter.grad is not None:
                parameter.grad.clamp_(-self.clamp, self.clamp)


def _trained(backbone: nn.Module) -> list[Tensor]:
    return [parameter for parameter in backbone.parameters() if parameter.requires_grad]
