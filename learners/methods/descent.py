"""Adapting by gradient descent on a support set, chunk by chunk: what MAML and FineTuner share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from learners.heads.base import State
from learners.heads.linear import Linear
from learners.labels import Labels
from learners.learner import Classifier, Passage, StagedLearner, as_pixels
from learners.networks import Backbone
from pipeline.errors import UsageError, check_choice

WEIGHTINGS: Final = ("whole", "paper")
Step: TypeAlias = Callable[[Sequence[Tensor]], None]
"""Moves the parameters by their gradients."""


@dataclass(frozen=True, slots=True, eq=False)
class Loss:
    """The cross-entropy of support units, summed."""

    logits: Callable[[Tensor], Tensor]
    """Of units, given by their numbers."""
    labels: Tensor
    """One for each unit."""
    units: int
    """In memory with their graph at a time."""

    def __call__(self, units: Tensor) -> Tensor:
        answers = self.labels[units.to(self.labels.device)]
        return functional.cross_entropy(self.logits(units), answers, reduction="sum")


@dataclass(frozen=True, slots=True)
class Descent:
    """How a support set is descended on.

    weighting: "whole" is the gradient of the mean loss over the support set, whatever the chunks. "paper"
    adds up the means of the chunks, as the official code does: with k chunks a step is k times as long.
    """

    steps: int
    weighting: str = "whole"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UsageError(f"the number of steps starts at 0, got {self.steps}")
        check_choice(self.weighting, WEIGHTINGS, "the weighting of chunks")

    def run(self, parameters: Sequence[Tensor], step: Step, loss: Loss) -> None:
        """Give `step` the loss's gradient as often as there are steps; `.grad` is not touched."""
        for _ in range(self.steps):
            step(self.gradient(parameters, loss))

    def gradient(self, parameters: Sequence[Tensor], loss: Loss) -> list[Tensor]:
        """At the parameters' present values."""
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for units in torch.split(torch.arange(len(loss.labels)), loss.units):
            share = len(loss.labels) if self.weighting == "whole" else len(units)
            with torch.enable_grad():
                part = loss(units) / share
            gradients = torch.autograd.grad(part, parameters, materialize_grads=True)
            for gathered, gradient in zip(total, gradients, strict=True):
                gathered.add_(gradient)
        return total


def support(
    images: Tensor | Sequence[Image.Image],
    labels: Tensor | Sequence[int],
    way: int | None,
    passage: Passage,
) -> tuple[Tensor, Labels]:
    """Pixels and checked labels of what someone has to show."""
    pixels, known = as_pixels(images), Labels.checked(torch.as_tensor(labels), way, passage.clip)
    if len(pixels) != len(known) * passage.clip:
        raise UsageError(f"{len(pixels)} support images need as many labels, not {len(labels)}")
    return pixels, known


def begin(backbone: Backbone, labels: Labels) -> tuple[State, Tensor]:
    """The state of a head that asks for gradients, and the labels, where the backbone is."""
    like = next(backbone.parameters())
    state = Linear().fit(like.new_empty(0, backbone.dim), labels)
    answers = torch.from_numpy(labels.values).to(like.device)
    return tuple(tensor.requires_grad_() for tensor in state), answers


def classifier(
    backbone: Backbone, film: Sequence[Tensor], state: State, passage: Passage
) -> Classifier:
    """What descent has led to."""
    settled = tuple(tensor.detach() for tensor in film), tuple(tensor.detach() for tensor in state)
    return Classifier(StagedLearner(backbone, Linear()), *settled, passage)
