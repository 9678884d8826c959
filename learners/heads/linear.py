"""Linear layers on features: trained on a support set, or generated from class means (CNAPs)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.base import Head, State, full_precision
from learners.labels import Labels


class LinearHead(Head):
    """A linear layer that starts at zero, where all classes are equally likely, and is then trained."""

    def fit(self, features: Tensor, labels: Labels) -> State:
        """Zero weights and bias."""
        return features.new_zeros(labels.way, features.shape[1]), features.new_zeros(labels.way)

    def logits(self, state: State, queries: Tensor) -> Tensor:
        weights, bias = state
        with full_precision(queries.device):
            return functional.linear(queries, weights, bias)


class LinearGenerator(Head):
    """A linear layer whose weights and bias two small networks generate from each class's mean (CNAPs)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weights = _three_layers(dim, dim)
        self.bias = _three_layers(dim, 1)

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        means = labels.averaging(features) @ features
        return means + self.weights(means), self.bias(means)[:, 0]

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        weights, bias = state
        return functional.linear(queries, weights, bias)


def _three_layers(dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, out), nn.ELU(), nn.Linear(out, out), nn.ELU(), nn.Linear(out, out))
