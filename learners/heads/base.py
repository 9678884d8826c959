"""Heads: the features of a support set become a classifier of features.

A head works in two steps. `fit` looks at the support set, once per task; `logits` then looks at queries,
batch by batch. What passes between them is a tuple of tensors, so that gradients can be gathered on it.
Logits are right up to a constant per query, which neither a loss nor a probability sees.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from learners.labels import Labels
from pipeline.errors import UsageError

State: TypeAlias = tuple[torch.Tensor, ...]
COSINE_TEMPERATURE: Final = 0.1


_ONE_AT_A_TIME: Final = threading.RLock()


class Head(nn.Module):
    """Per-class tensors from support features, and logits from those."""

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        """What queries need to know of the support set; features are N x d."""
        raise NotImplementedError

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        """M x way, from the queries' M x d features."""
        raise NotImplementedError


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


class LinearGenerator(Head):
    """Two small networks turn each class's mean into the weights and the bias of a linear layer (CNAPs)."""

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


def check_known(name: str, known: tuple[str, ...], what: str) -> None:
    """Refuse a name that is none of those."""
    if name not in known:
        raise UsageError(f"{what} is one of {', '.join(known)}; got {name!r}")


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32: a head's sums and inverses need all of float32. Backward passes, too.

    TF32 is the process's, so one thread at a time may have it off.
    """
    matmul = torch.backends.cuda.matmul
    with _ONE_AT_A_TIME:
        before = matmul.fp32_precision
        try:
            matmul.fp32_precision = "ieee"
            with torch.autocast(device.type, enabled=False):
                yield
        finally:
            matmul.fp32_precision = before


def _three_layers(dim: int, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(dim, out), nn.ELU(), nn.Linear(out, out), nn.ELU(), nn.Linear(out, out)
    )
