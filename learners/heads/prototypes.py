"""Prototypes: each class is the mean of its support features (Snell et al., Prototypical Networks, 2017)."""

from __future__ import annotations

from typing import Final

import torch
from torch.nn import functional

from learners.heads.base import Head, State
from learners.labels import Labels
from pipeline.errors import UsageError

COSINE_TEMPERATURE: Final = 0.1


class PrototypeHead(Head):
    """Similarity to each class's mean, divided by a temperature.

    Features of pretrained networks can lie so far apart that at temperature 1 every softmax is 0 or 1, and only
    misclassified queries have a gradient. The temperature is a buffer, so a checkpoint keeps it.
    """

    temperature: torch.Tensor

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.ones(()))
        self.set_temperature(temperature)

    def set_temperature(self, value: float) -> None:
        """Divide logits by `value` from now on."""
        if value <= 0:
            raise UsageError(f"a temperature is positive, got {value}")
        self.temperature.fill_(value)


class EuclideanPrototypes(PrototypeHead):
    """Minus the squared distance (Prototypical Networks, at temperature 1)."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__(temperature)

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        means = labels.averaging(features) @ features
        return means, means.square().sum(1)

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        means, squares = state
        return (2 * queries @ means.T - squares) / self.temperature


class CosinePrototypes(PrototypeHead):
    """Cosine similarity: from -1 to 1, too narrow for a softmax over many classes without a temperature."""

    def __init__(self, temperature: float = COSINE_TEMPERATURE) -> None:
        super().__init__(temperature)

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        return (functional.normalize(labels.averaging(features) @ features),)

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        (directions,) = state
        return functional.normalize(queries) @ directions.T / self.temperature
