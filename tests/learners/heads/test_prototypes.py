from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from learners.heads.base import full_precision
from learners.heads.linear import LinearGenerator
from learners.heads.prototypes import CosinePrototypes, EuclideanPrototypes
from learners.labels import Labels
from pipeline.errors import UsageError, check_choice
from tests.learners.tasks import shuffled

SHOTS = (3, 1, 4)


@pytest.fixture
def support() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(8, 6, dtype=torch.float64), shuffled(SHOTS)


@pytest.fixture
def queries() -> torch.Tensor:
    return torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def means(features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return torch.stack([features[labels == label].mean(0) for label in range(len(SHOTS))])


def test_euclidean_logits_are_minus_squared_distances_to_class_means(
    support: tuple[torch.Tensor, torch.Tensor], queries: torch.Tensor
) -> None:
    features, labels = support
    head = EuclideanPrototypes()
    found = head.logits(head.fit(features, Labels.checked(labels)), queries)
    expected = -(queries[:, None] - means(features, labels)).square().sum(2)
    assert torch.allclose(found.log_softmax(1), expected.log_softmax(1), rtol=1e-12)


def test_a_temperature_divides_the_distances() -> None:
    features, queries = torch.randn(6, 5), torch.randn(3, 5)
    labels = Labels.checked(torch.tensor([0, 1, 2, 0, 1, 2]))
    plain, warm = EuclideanPrototypes(), EuclideanPrototypes(temperature=8.0)
    expected = plain.logits(plain.fit(features, labels), queries) / 8
    assert torch.equal(warm.logits(warm.fit(features, labels), queries), expected)


def test_cosine_logits_are_scaled_cosines_to_class_means(
    support: tuple[torch.Tensor, torch.Tensor], queries: torch.Tensor
) -> None:
    features, labels = support
    head = CosinePrototypes(temperature=0.25)
    found = head.logits(head.fit(features, Labels.checked(labels)), queries)
    expected = 4 * functional.cosine_similarity(queries[:, None], means(features, labels), dim=2)
    assert torch.allclose(found, expected, rtol=1e-12)


def test_generated_rows_are_class_means_plus_what_two_networks_make_of_them(
    support: tuple[torch.Tensor, torch.Tensor], queries: torch.Tensor
) -> None:
    features, labels = support
    head = LinearGenerator(6).double()
    found = head.logits(head.fit(features, Labels.checked(labels)), queries)
    for label, mean in enumerate(means(features, labels)):
        weights, bias = mean, mean
        for number in (0, 2, 4):
            last = number == 4
            layers = (head.weights[number], head.bias[number])
            assert all(isinstance(layer, nn.Linear) for layer in layers)
            weights, bias = layers[0](weights), layers[1](bias)
            weights, bias = (x if last else functional.elu(x) for x in (weights, bias))
        expected = queries @ (weights + mean) + bias
        assert torch.allclose(found[:, label], expected, rtol=1e-12)


@pytest.mark.parametrize(("dim", "total"), [(512, 788_485), (1280, 4_920_325)])
def test_the_generator_has_the_papers_number_of_parameters(dim: int, total: int) -> None:
    assert sum(parameter.numel() for parameter in LinearGenerator(dim).parameters()) == total


def test_full_precision_ends_autocast_and_puts_back_what_was_set() -> None:
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    one = torch.ones(2, 2)
    try:
        matmul.fp32_precision = "tf32"
        with torch.autocast("cpu", torch.bfloat16), full_precision(torch.device("cpu")):
            assert (one @ one).dtype == torch.float32
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_a_name_that_is_unknown_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match="the metric is one of a, b; got 'c'"):
        check_choice("c", ("a", "b"), "the metric")
