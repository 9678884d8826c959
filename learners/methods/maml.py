"""First-order MAML: a network from which few steps of gradient descent lead to any task's classifier.

The gradient at the adapted weights is taken for the gradient at the first ones, so nothing of the inner
steps is kept: support and queries pass in chunks, exactly, in the memory of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.base import State
from learners.heads.linear import Linear
from learners.labels import Labels
from learners.learner import CHUNK, Classifier, Passage, Task
from learners.lite.engine import Outcome
from learners.lite.queries import Tally, batches
from learners.methods.descent import Descent, Loss, begin, classifier, support
from learners.networks import Backbone
from pipeline.errors import UsageError

STEPS: Final = 15


@dataclass(frozen=True, slots=True)
class Rates:
    """Of the inner steps."""

    head: float = 0.001
    backbone: float = 0.0001


class MAML(nn.Module):
    """The backbone is what is learned; a linear head begins at zero in every task.

    clamp: after each chunk of queries every element of the gathered gradient is kept within this
    (the papers: 10; None: nowhere).
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        descent: Descent | None = None,
        rates: Rates | None = None,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        if clamp is not None and clamp <= 0:
            raise UsageError(f"gradients are clamped to a positive number or to none, not {clamp}")
        if backbone.norm == "batch":
            raise UsageError("MAML needs a backbone with norm='example', as the papers use it")
        self.backbone = backbone
        self.descent = descent or Descent(STEPS)
        self.rates = rates or Rates()
        self.clamp = clamp

    @torch.enable_grad()
    def backward(
        self,
        task: Task,
        *,
        chunk: int = CHUNK,
        precision: torch.dtype | None = None,
        scale: float = 1.0,
    ) -> Outcome:
        """Add `scale` times the gradient of a task's loss to `.grad` of the backbone's parameters.

        The parameters have their values again when this returns or fails.
        """
        passage = Passage(clip=task.clip, chunk=chunk, precision=precision)
        labels = Labels.checked(task.labels, task.way, task.clip)
        with self._restored():
            state = self._adapt(self.backbone, task.images, labels, passage)
            tally = Tally(task, state[0].device)
            for images, answers in batches(task, passage):
                logits = Linear().logits(state, passage.run(self.backbone, images))
                wanted = tally.usable(answers)
                loss = functional.cross_entropy(logits, wanted, reduction="sum")
                torch.autograd.backward(loss * (scale * task.clip / task.query_count))
                self._clamp()
                tally.add(answers, loss.detach(), (logits.argmax(1) == wanted).sum())
            tally.check()
        used = len(labels) * self.descent.steps
        return Outcome(tally.loss / tally.seen, tally.correct, tally.seen, {"backbone": used})

    def adapt(
        self,
        images: Tensor | Sequence[Image.Image],
        labels: Tensor | Sequence[int],
        way: int | None = None,
        passage: Passage | None = None,
    ) -> Classifier:
        """A classifier with a backbone of its own: this learner goes on unchanged."""
        passage = passage or Passage()
        pixels, known = support(images, labels, way, passage)
        own = deepcopy(self.backbone)
        state = self._adapt(own, pixels, known, passage)
        own.requires_grad_(requires_grad=False)
        return classifier(own, (), state, passage)

    def _adapt(self, backbone: Backbone, images: Tensor, labels: Labels, passage: Passage) -> State:
        """Move a backbone's parameters down the support's loss; the head that goes with them."""
        state, answers = begin(backbone, labels)
        moving = _trained(backbone)
        rates = [self.rates.backbone] * len(moving) + [self.rates.head] * len(state)

        def logits(units: Tensor) -> Tensor:
            (part,) = passage.parts(images, units)
            return Linear().logits(state, passage.run(backbone, part))

        def step(gradients: Sequence[Tensor]) -> None:
            with torch.no_grad():
                for value, gradient, rate in zip([*moving, *state], gradients, rates, strict=True):
                    value.sub_(gradient, alpha=rate)

        self.descent.run([*moving, *state], step, Loss(logits, answers, passage.units))
        return tuple(tensor.detach() for tensor in state)

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """Whatever becomes of the parameters within, they are as before after it."""
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
