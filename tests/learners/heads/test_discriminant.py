from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from learners.heads.discriminant import LinearDiscriminant
from learners.heads.prototypes import EuclideanPrototypes
from learners.labels import Labels
from tests.learners.tasks import shuffled

DIM = 6
FEW, MANY = (1, 2, 1), (7, 1, 12)  # fewer units than dimensions, and more


def support(shots: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    labels = shuffled(shots)
    return torch.randn(len(labels), DIM, dtype=torch.float64) * 3 + labels[:, None], labels


def queries() -> Tensor:
    return torch.randn(5, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3


def logits(head: LinearDiscriminant, features: Tensor, labels: Tensor) -> Tensor:
    return head.logits(head.fit(features, Labels.checked(labels)), queries())


def densities(features: Tensor, labels: Tensor, spread: float, ridge: float) -> Tensor:
    """Log densities, by torch's own Gaussian."""
    covariance = spread * features.T.cov() + ridge * torch.eye(DIM, dtype=torch.float64)
    columns = [
        MultivariateNormal(features[labels == label].mean(0), covariance).log_prob(queries())  # type: ignore[no-untyped-call]
        for label in range(int(labels.max()) + 1)
    ]
    return torch.stack(columns, 1)


@pytest.mark.parametrize("shots", [FEW, MANY])
@pytest.mark.parametrize("scaled", [True, False])
def test_logits_are_log_densities_under_one_covariance(shots: tuple[int, ...], scaled: bool) -> None:  # noqa: FBT001
    features, labels = support(shots)
    head = LinearDiscriminant(scaled=scaled).double()
    with torch.no_grad():
        head.log_spread.fill_(0.3)
        head.log_ridge.fill_(-0.7)
    unit = float(features.T.cov().trace()) / DIM if scaled else 1.0
    expected = densities(features, labels, math.exp(0.3), math.exp(-0.7) * unit)
    found = logits(head, features, labels)
    assert torch.allclose(found.log_softmax(1), expected.log_softmax(1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("shots", [FEW, MANY])
def test_gradients_reach_features_and_both_factors_as_through_the_whole_matrix(
    shots: tuple[int, ...],
) -> None:
    features, labels = support(shots)
    head = LinearDiscriminant().double()
    features.requires_grad_()
    torch.autograd.gradcheck(
        lambda rows, spread, ridge: torch.func.functional_call(
            _Logits(head, labels), {"head.log_spread": spread, "head.log_ridge": ridge}, (rows,)
        ),
        (features, torch.full((), 0.2, dtype=torch.float64, requires_grad=True),
         torch.full((), -0.1, dtype=torch.float64, requires_grad=True)),
    )  # fmt: skip


class _Logits(torch.nn.Module):
    """The head's logits as one function."""

    def __init__(self, head: LinearDiscriminant, labels: Tensor) -> None:
        super().__init__()
        self.head = head
        self.labels = labels

    def forward(self, features: Tensor) -> Tensor:
        return logits(self.head, features, self.labels)


def test_a_vanishing_spread_leaves_euclidean_prototypes() -> None:
    features, labels = support(MANY)
    head = LinearDiscriminant(scaled=False).double()
    with torch.no_grad():
        head.log_spread.fill_(-60)
    prototypes = EuclideanPrototypes(temperature=2)
    state = prototypes.fit(features, Labels.checked(labels))
    expected = prototypes.logits(state, queries())
    assert torch.allclose(
        logits(head, features, labels).log_softmax(1), expected.log_softmax(1), rtol=0, atol=1e-12
    )


def test_the_scale_of_features_does_not_change_the_answers() -> None:
    features, labels = support(MANY)
    head = LinearDiscriminant().double()
    near = head.logits(head.fit(features, Labels.checked(labels)), queries())
    far = head.logits(head.fit(100 * features, Labels.checked(labels)), 100 * queries())
    assert torch.allclose(near, far, rtol=1e-9)


def test_renumbered_classes_have_their_columns_exchanged() -> None:
    features, labels = support(MANY)
    head, order = LinearDiscriminant().double(), torch.tensor([2, 0, 1])
    assert torch.allclose(
        logits(head, features, labels)[:, order.argsort()], logits(head, features, order[labels])
    )


@pytest.mark.parametrize("rows", [1, 3])
def test_units_that_are_all_alike_give_equal_logits_and_no_nan(rows: int) -> None:
    features = torch.ones(rows, DIM, dtype=torch.float64)
    found = logits(LinearDiscriminant().double(), features, torch.arange(rows))
    assert torch.allclose(found.softmax(1), torch.full((5, rows), 1 / rows, dtype=torch.float64))
