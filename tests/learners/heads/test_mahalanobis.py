from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learners.heads.base import State
from learners.heads.fitted_classes import FittedClasses
from learners.heads.mahalanobis import MahalanobisHead, OneShotCovariance
from learners.labels import Labels
from pipeline.errors import PipelineError, UsageError
from tests.learners.tasks import error, shuffled

CASES = {
    "balanced, few units": ((3, 3, 3, 3), 20),
    "unbalanced, few units": ((1, 2, 4, 5), 20),
    "one shot each": ((1, 1, 1, 1), 9),
    "balanced, few dimensions": ((5, 5, 5), 4),
    "unbalanced, few dimensions": ((1, 2, 11, 6), 4),
    "as many units as dimensions": ((1, 4, 5), 10),
    "one unit less than dimensions": ((1, 4, 5), 11),
    "one class": ((4,), 6),
    "more sizes than nodes, few units": (tuple(range(1, 29)), 410),
    "more sizes than nodes, few dimensions": (tuple(range(1, 29)), 12),
}


def covariance(rows: Tensor, one_shot: OneShotCovariance) -> Tensor:
    """As the official codes have it, or of zero, for a single row."""
    if len(rows) > 1:
        return torch.cov(rows.T)
    size = rows.shape[1]
    ones = torch.ones(size, size, dtype=rows.dtype)
    return rows.var() * ones if one_shot == "official" else 0 * ones


def by_inverses(features: Tensor, labels: Tensor, queries: Tensor, one_shot: OneShotCovariance) -> Tensor:
    """The definition: a loop of inverses."""
    logits = []
    task = covariance(features, one_shot)
    for label in range(int(labels.max()) + 1):
        rows = features[labels == label]
        share = len(rows) / (len(rows) + 1)
        mixed = share * covariance(rows, one_shot) + (1 - share) * task
        inverse = torch.inverse(mixed + torch.eye(len(mixed), dtype=mixed.dtype))
        away = queries - rows.mean(0)
        logits.append(-(away @ inverse * away).sum(1))
    return torch.stack(logits, 1)


def example(shots: tuple[int, ...], dim: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(sum(shots) + dim)
    labels = shuffled(shots)
    centres = torch.randn(len(shots), dim, dtype=torch.float64)
    features = centres[labels] + torch.randn(len(labels), dim, dtype=torch.float64)
    return features, labels, torch.randn(7, dim, dtype=torch.float64)


def gradients(logits: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)
    return torch.autograd.grad((logits.log_softmax(1) * weights).sum(), inputs)


@pytest.mark.parametrize("one_shot", ["zero", "official"])
@pytest.mark.parametrize("case", CASES)
def test_logits_and_gradients_are_those_of_a_loop_of_inverses(case: str, one_shot: OneShotCovariance) -> None:
    features, labels, queries = example(*CASES[case])
    features.requires_grad_()
    queries.requires_grad_()
    head = MahalanobisHead(one_shot)
    found = head.logits(head.fit(features, Labels.checked(labels)), queries)
    expected = by_inverses(features, labels, queries, one_shot)
    assert (found.log_softmax(1) - expected.log_softmax(1)).abs().max() < 1e-10
    if found.shape[1] > 1:
        for one, other in zip(
            gradients(found, features, queries), gradients(expected, features, queries), strict=True
        ):
            assert error(one, other) < 1e-10


def test_the_official_one_shot_covariance_is_not_zero() -> None:
    features, labels, queries = example((1, 2, 4), 20)
    zero, official = (
        head.logits(head.fit(features, Labels.checked(labels)), queries).log_softmax(1)
        for head in (MahalanobisHead(), MahalanobisHead("official"))
    )
    assert (zero - official).abs().max() > 0.01


@pytest.mark.parametrize("one_shot", ["zero", "official"])
def test_one_image_alone_is_a_class(one_shot: OneShotCovariance) -> None:
    head = MahalanobisHead(one_shot)
    features = torch.randn(1, 5, dtype=torch.float64, requires_grad=True)
    logits = head.logits(head.fit(features, Labels.checked(torch.tensor([0]))), torch.randn(3, 5))
    assert logits.shape == (3, 1)
    assert logits.isfinite().all()
    (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, torch.zeros(3).long()), features)
    assert gradient.abs().max() == 0


def test_features_that_are_all_alike_have_gradients() -> None:
    for one_shot in ("zero", "official"):
        head = MahalanobisHead(one_shot)
        features = torch.zeros(3, 5, requires_grad=True)
        state = head.fit(features, Labels.checked(torch.tensor([0, 1, 1])))
        logits = head.logits(state, torch.ones(2, 5))
        (gradient,) = torch.autograd.grad(logits.log_softmax(1)[:, 0].sum(), features)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("scale", [1, 5, 25])
@pytest.mark.parametrize("shots", [(5,) * 12, (1, 2, 2, 3, 5, 7, 10, 30)])
def test_float32_is_enough_and_no_worse_than_inverses(shots: tuple[int, ...], scale: int) -> None:
    features, labels, queries = example(shots, 96)
    head, known = MahalanobisHead(), Labels.checked(labels)

    def found(dtype: torch.dtype, *, gram: bool) -> list[Tensor]:
        f, q = ((scale * x).to(dtype).requires_grad_() for x in (features, queries))
        logits = head.logits(head.fit(f, known), q) if gram else by_inverses(f, labels, q, "zero")
        loss = functional.cross_entropy(logits / scale**2, torch.arange(7) % len(shots))
        centred = logits - logits.mean(1, keepdim=True)
        return [x.double() for x in (centred, *torch.autograd.grad(loss, (f, q)))]

    exact = found(torch.float64, gram=True)
    ours, theirs = (found(torch.float32, gram=gram) for gram in (True, False))
    for wanted, one, other in zip(exact, ours, theirs, strict=True):
        assert error(one, wanted) < max(2e-5, error(other, wanted))
    assert torch.equal(exact[0].argmax(1), ours[0].argmax(1))


def groups_of_older_versions(state: State) -> State:
    """A state as files of before November 2026 have it: six tensors for each size of class."""
    fitted = FittedClasses(*state)
    old = [fitted.mean, fitted.means, fitted.axes, fitted.kernel]
    for sizes, inverse in zip(fitted.of_size, fitted.inverses, strict=True):
        classes = sizes.nonzero()[:, 0]
        rows = [fitted.of_class[:, label].nonzero()[:, 0] for label in classes]
        own = torch.stack([fitted.solved_rows[one] / inverse for one in rows])
        shifts = torch.stack([fitted.shifts[one] for one in rows])
        old += [classes, inverse, fitted.squares[classes], own, shifts, fitted.weights[classes[0]]]
    return tuple(old)


@pytest.mark.parametrize(
    "case", ["unbalanced, few units", "unbalanced, few dimensions", "balanced, few units"]
)
def test_the_states_of_older_files_still_answer(case: str) -> None:
    features, labels, queries = example(*CASES[case])
    head = MahalanobisHead()
    state = head.fit(features, Labels.checked(labels))
    again = head.upgraded(groups_of_older_versions(state))
    assert error(head.logits(again, queries), head.logits(state, queries)) < 1e-12
    assert head.upgraded(state) is state


def test_an_older_state_of_more_units_than_fit_in_memory_is_refused() -> None:
    features, labels, _ = example((1, 2), 4)
    old = list(groups_of_older_versions(MahalanobisHead().fit(features, Labels.checked(labels))))
    old[7] = old[7].new_zeros(1, 1 << 30, 0)
    with pytest.raises(ValueError, match="more units than a support set"):
        MahalanobisHead().upgraded(tuple(old))


def test_features_that_are_not_numbers_are_refused() -> None:
    features = torch.zeros(4, 3)
    features[1, 1] = torch.nan
    with pytest.raises(PipelineError, match="hold infinity or NaN"):
        MahalanobisHead().fit(features, Labels.checked(torch.tensor([0, 0, 1, 1])))


def test_another_one_shot_rule_is_refused() -> None:
    with pytest.raises(UsageError, match="one_shot is one of zero, official; got 'none'"):
        MahalanobisHead("none")  # type: ignore[arg-type]
