"""The authors' classifiers: how support features become logits of queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualDense(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(inputs, outputs)
        self.linear2 = nn.Linear(outputs, outputs)
        self.linear3 = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear3(functional.elu(self.linear2(functional.elu(self.linear1(x)))))
        made: Tensor = y + x if x.shape == y.shape else y
        return made


class LinearGenerator2021(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight_processor = ResidualDense(dim, dim)
        self.bias_processor = ResidualDense(dim, 1)

    def forward(self, features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
        means = class_means(features, labels)
        logits: Tensor = queries @ self.weight_processor(means).T + self.bias_processor(means)[:, 0]
        return logits


def class_means(features: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([features[labels == label].mean(0) for label in torch.unique(labels)])


def prototype_logits(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    means = class_means(features, labels)
    return 2 * queries @ means.T - (means**2).sum(1)


def cosine_logits(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    return functional.cosine_similarity(queries[:, None], class_means(features, labels)[None], dim=2)


def mahalanobis_logits(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    """In float64: the authors' inverses of 1280 x 1280 matrices lose digits in float32."""
    features, queries = features.double(), queries.double()
    columns = []
    for label in torch.unique(labels):
        own = features[labels == label]
        share = len(own) / (len(own) + 1)
        precision = (share * covariance(own) + (1 - share) * covariance(features)
                     + torch.eye(features.shape[1], dtype=torch.float64)).inverse()  # fmt: skip
        away = queries - own.mean(0)
        columns.append(-(away @ precision * away).sum(1))
    return torch.stack(columns, 1)


def covariance(rows: Tensor) -> Tensor:
    """Of one row: its variance across dimensions, a single number, as the authors' code has it."""
    return rows.T.cov() if len(rows) > 1 else rows[0].var()
