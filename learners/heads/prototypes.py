"""Prototypes: each class is the mean of its support features (Snell et al., Prototypical Networks, 2017)."""

from __future__ import annotations

from typing import Final

import torch
from torch.nn import functional

from learners.heads.base import Head, State
from learners.labels import Labels
from pipeline.errors import UsageError

COSINE_TEMPERATURE: Final = 0.1


class Prototypes(Head):
    """Nearness to each class's mean, over a temperature.

    Features of pretrained networks may lie so far apart that at temperature 1 every softmax is 0 or 1, and only
    the queries that are wrong have a gradient. A buffer, so that a checkpoint keeps it.
    """

    temperature: torch.Tensor

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if temperature <= 0:
            raise UsageError(f"a temperature is positive, got {temperature}")
        self.register_buffer("temperature", torch.tensor(float(temperature)))


class Euclidean(Prototypes):
    """Minus the squared distance (Prototypical Networks, at temperature 1)."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        means = labels.averaging(features) @ features
        return means, means.square().sum(1)

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        means, squares = state
        return (2 * queries @ means.T - squares) / self.temperature


class Cosine(Prototypes):
    """The cosine of the angle: from -1 to 1, which is too little for a softmax over many classes."""

    def __init__(self, temperature: float = COSINE_TEMPERATURE) -> None:
        super().__init__(temperature)

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        return (functional.normalize(labels.averaging(features) @ features),)

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        (directions,) = state
        return functional.normalize(queries) @ directions.T / self.temperature
