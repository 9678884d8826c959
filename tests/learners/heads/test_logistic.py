from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learners.heads.logistic import LogisticHead
from learners.labels import Labels
from pipeline.errors import UsageError
from tests.learners.tasks import shuffled

DIM = 8


def support(shots: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    labels = shuffled(shots)
    return torch.randn(len(labels), DIM, dtype=torch.float64) * 3 + labels[:, None], labels


@pytest.mark.parametrize("shots", [(1, 1), (4, 1, 9)])
@pytest.mark.parametrize("c", [0.1, 10.0, 1000.0])
def test_the_optimum_of_a_strictly_convex_objective_is_reached(shots: tuple[int, ...], c: float) -> None:
    features, labels = support(shots)
    weights, bias = LogisticHead(c).fit(features, Labels.checked(labels))
    rows = functional.normalize(features)
    surplus = functional.linear(rows, weights, bias).softmax(1) - functional.one_hot(labels)
    assert torch.allclose(c * surplus.T @ rows, -weights, rtol=0, atol=1e-5 * c)
    assert surplus.sum(0).abs().max() < 1e-5
    start = torch.zeros_like(weights)
    assert objective(c, rows, labels, weights, bias) < objective(
        c, rows, labels, start, torch.zeros_like(bias)
    )


def objective(c: float, rows: Tensor, labels: Tensor, weights: Tensor, bias: Tensor) -> float:
    loss = functional.cross_entropy(functional.linear(rows, weights, bias), labels, reduction="sum")
    return float(c * loss + weights.square().sum() / 2)


def test_the_length_of_a_feature_does_not_matter() -> None:
    features, labels = support((4, 3, 9))
    head = LogisticHead()
    state = head.fit(features, Labels.checked(labels))
    longer = features * torch.linspace(1, 50, len(features), dtype=torch.float64)[:, None]
    assert torch.allclose(head.logits(state, features), head.logits(state, longer))
    assert torch.allclose(state[0], head.fit(longer, Labels.checked(labels))[0], atol=1e-6)


def test_renumbered_classes_have_their_columns_exchanged() -> None:
    features, labels = support((4, 3, 9))
    head, order = LogisticHead(), torch.tensor([2, 0, 1])
    first = head.logits(head.fit(features, Labels.checked(labels)), features)
    second = head.logits(head.fit(features, Labels.checked(order[labels])), features)
    assert torch.allclose(first[:, order.argsort()], second, atol=1e-5)


def test_features_keep_no_graph_and_need_no_gradient() -> None:
    features, labels = support((2, 2))
    with torch.no_grad():
        weights, bias = LogisticHead().fit(features.requires_grad_(), Labels.checked(labels))
    assert not weights.requires_grad
    assert not bias.requires_grad


@pytest.mark.parametrize("c", [0.0, -1.0, math.inf, math.nan])
def test_a_c_that_is_no_strength_of_a_penalty_is_refused(c: float) -> None:
    with pytest.raises(UsageError, match="positive number"):
        LogisticHead(c)
