"""Gradient descent on a support set, chunk by chunk: shared by MAML and FineTuner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from learners.heads.base import State
from learners.heads.linear import LinearHead
from learners.labels import Labels
from learners.networks import Backbone
from learners.task import ChunkedPass, Classifier
from pipeline.errors import UsageError, check_choice

WEIGHTINGS: Final = ("whole", "paper")
MOST_STEPS: Final = 10_000  # in one task; the papers' are 15 and 50, and a file may not ask for endless time
Step: TypeAlias = Callable[[Sequence[Tensor]], None]
"""A function that updates the parameters, given their gradients."""


@dataclass(frozen=True, slots=True, eq=False)
class SupportLoss:
    """The summed cross-entropy of support units."""

    logits: Callable[[Tensor], Tensor]
    """The logits of units, given by their indices."""
    labels: Tensor
    """One label for each unit."""
    units: int
    """Units whose graph is in memory at a time."""

    def __call__(self, units: Tensor) -> Tensor:
        answers = self.labels[units.to(self.labels.device)]
        return functional.cross_entropy(self.logits(units), answers, reduction="sum")


@dataclass(frozen=True, slots=True)
class SupportDescent:
    """Steps of gradient descent on a support set.

    weighting: "whole" is the gradient of the mean loss over the support set, whatever the chunks, as in ORBIT's
    code since 2022. "paper" adds up the chunks' mean losses, as in 2021: with k chunks a step is k times as long.
    """

    steps: int
    weighting: str = "whole"

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= MOST_STEPS:
            raise UsageError(f"the number of steps is 0 to {MOST_STEPS:,}, got {self.steps}")
        check_choice(self.weighting, WEIGHTINGS, "the weighting of chunks")

    def run(self, parameters: Sequence[Tensor], step: Step, loss: SupportLoss) -> None:
        """Call `step` with the loss's gradient once per step; `.grad` is not touched."""
        for _ in range(self.steps):
            step(self.gradient(parameters, loss))

    def gradient(self, parameters: Sequence[Tensor], loss: SupportLoss) -> list[Tensor]:
        """The gradient of the loss at the parameters' current values."""
        total = [torch.zeros_like(parameter) for parameter in parameters]
        for units in torch.split(torch.arange(len(loss.labels)), loss.units):
            share = len(loss.labels) if self.weighting == "whole" else len(units)
            with torch.enable_grad():
                part = loss(units) / share
            gradients = torch.autograd.grad(part, parameters, materialize_grads=True)
            for gathered, gradient in zip(total, gradients, strict=True):
                gathered.add_(gradient)
        return total


def new_linear_state(backbone: Backbone, labels: Labels) -> tuple[State, Tensor]:
    """A zero linear head that requires grad, and the labels, on the backbone's device."""
    like = next(backbone.parameters())
    state = LinearHead().fit(like.new_empty(0, backbone.dim), labels)
    answers = torch.from_numpy(labels.values).to(like.device)
    return tuple(tensor.requires_grad_() for tensor in state), answers


def descended_classifier(
    backbone: Backbone, film: Sequence[Tensor], state: State, passage: ChunkedPass
) -> Classifier:
    """The classifier after descent, detached."""
    settled = tuple(tensor.detach() for tensor in film), tuple(tensor.detach() for tensor in state)
    return Classifier(backbone, LinearHead(), *settled, passage)
