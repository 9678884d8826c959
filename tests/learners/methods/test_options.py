"""Options of a learner reach its method, which then does what the papers' codes do; wrong ones are refused."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from learners.learner import MetaLearner
from learners.methods.catalogue import LEARNERS, make_learner
from learners.methods.finetuner import FineTuner
from learners.methods.maml import MAML
from learners.methods.options import OPTION_NAMES, LearnerOptions
from learners.networks.film import identity_film
from learners.task import ChunkedPass
from pipeline.errors import UsageError
from tests.learners.small import pictures, toy

IMAGES, LABELS = pictures(7, seed=1), torch.tensor([0, 1, 2, 0, 1, 0, 2])
QUERIES = pictures(5, seed=2)
WAY = 3


pytestmark = pytest.mark.usefixtures("one_thread")


def learner(name: str, **options: Any) -> MetaLearner:
    """A learner of the catalogue, on a small backbone in float64 that is always the same."""
    with patch("learners.methods.catalogue.backbone", lambda _, film, **__: toy(film=bool(film))):
        return make_learner(name, "toy", options=LearnerOptions(**options)).double()


def logits(net: MetaLearner, chunk: int) -> Tensor:
    return net.adapt(IMAGES, LABELS, passage=ChunkedPass(chunk=chunk)).logits(QUERIES)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def official(
    net: MetaLearner,
    batch: int,
    *,
    steps: int,
    rates: tuple[float, float],
    adam: bool = False,
    weighed: bool = False,
) -> Tensor:
    """The logits after the inner loop of ORBIT's code, written from what it does.

    A linear layer starts at zero. In each step the gradients of the mean losses of all batches add up before the
    optimiser moves; in the code since 2022 a batch's loss is first multiplied by its share of the images.
    rates: of the layer and of the backbone, which is frozen at 0.
    """
    backbone = deepcopy(net.backbone)
    layer = nn.Linear(backbone.dim, WAY).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    groups: list[dict[str, Any]] = [{"params": list(layer.parameters()), "lr": rates[0]}]
    if rates[1]:
        groups.append({"params": list(backbone.requires_grad_().parameters()), "lr": rates[1]})
    optimizer = torch.optim.Adam(groups) if adam else torch.optim.SGD(groups)
    for _ in range(steps):
        for images, labels in zip(torch.split(IMAGES, batch), torch.split(LABELS, batch), strict=True):
            loss = cross_entropy(layer(backbone(images)), labels)
            torch.autograd.backward(loss * (len(labels) / len(LABELS) if weighed else 1.0))
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        expected: Tensor = layer(backbone(QUERIES))
        return expected


# What reaches the method


def test_options_of_a_finetuner_reach_it() -> None:
    net = learner("finetuner", inner_steps=7, inner_lr=0.3, inner_optimizer="adam", inner_weighting="paper")
    assert isinstance(net, FineTuner)
    assert (net.optimizer, net.lr, net.film) == ("adam", 0.3, False)
    assert (net.descent.steps, net.descent.weighting, net.inner_steps) == (7, "paper", 7)


def test_options_of_a_maml_reach_it() -> None:
    options = {
        "inner_steps": 4,
        "inner_lr": 0.3,
        "inner_backbone_lr": 0.2,
        "inner_weighting": "paper",
        "clamp": 9,
    }
    net = learner("maml", **options)
    assert isinstance(net, MAML)
    assert (net.rates.head, net.rates.backbone, net.clamp) == (0.3, 0.2, 9)
    assert (net.descent.steps, net.descent.weighting, net.inner_steps) == (4, "paper", 4)


def test_without_options_steps_and_rates_are_the_papers() -> None:
    sgd, adam, maml = (learner(name) for name in ("finetuner", "finetuner_film", "maml"))
    assert isinstance(sgd, FineTuner)
    assert isinstance(adam, FineTuner)
    assert isinstance(maml, MAML)
    assert (sgd.descent.steps, sgd.optimizer, sgd.lr) == (50, "sgd", 0.1)
    assert (adam.descent.steps, adam.optimizer, adam.lr, adam.film) == (50, "adam", 0.001, True)
    assert (maml.descent.steps, maml.rates.head, maml.rates.backbone, maml.clamp) == (15, 1e-3, 1e-4, None)
    assert {net.descent.weighting for net in (sgd, adam, maml)} == {"whole"}


@pytest.mark.parametrize("name", ["finetuner_film", "cnaps"])
def test_the_places_of_film_are_those_that_match(name: str) -> None:
    """ORBIT's code since 2022 has FiLM at 17 norms of EfficientNet-B0, not at that of the first block."""
    since_2022 = LearnerOptions(film_places=r"bn1|bn2|blocks\.[1-6]\.\d+\.bn2")
    ours, theirs = (
        make_learner(name, "efficientnet_b0", options=options).backbone.film_channels
        for options in (LearnerOptions(), since_2022)
    )
    assert (len(ours), len(theirs)) == (18, 17)
    assert ours == (theirs[0], 32, *theirs[1:])
    with pytest.raises(UsageError, match="FiLM needs norms that match 'layer'"):
        make_learner(name, "efficientnet_b0", options=LearnerOptions(film_places="layer"))


def test_an_optimizer_without_a_rate_has_the_papers() -> None:
    rates = {"sgd": 0.1, "adam": 0.001}
    for name in ("finetuner", "finetuner_film"):
        for optimizer, rate in rates.items():
            net = learner(name, inner_optimizer=optimizer)
            assert isinstance(net, FineTuner)
            assert (net.optimizer, net.lr) == (optimizer, rate)


# What the method then does


@pytest.mark.parametrize("chunk", [1, 2, 3, 6])
def test_the_papers_weighting_with_k_equal_chunks_takes_k_times_the_step(chunk: int) -> None:
    images, labels = IMAGES[:6], LABELS[:6]
    for name, options in (("finetuner", {}), ("maml", {"inner_backbone_lr": 1e-300})):
        whole, paper = (
            learner(name, inner_steps=1, inner_weighting=weighting, **options)
            .adapt(images, labels, passage=ChunkedPass(chunk=chunk))
            .state
            for weighting in ("whole", "paper")
        )
        for ours, theirs in zip(whole, paper, strict=True):
            assert error(theirs, 6 // chunk * ours) < 1e-13


@pytest.mark.parametrize("batch", [2, 3, 16])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_papers_weighting_is_the_finetuner_of_orbits_code_of_2021(optimizer: str, batch: int) -> None:
    net = learner("finetuner", inner_weighting="paper", inner_optimizer=optimizer)
    rate = {"sgd": 0.1, "adam": 0.001}[optimizer]
    expected = official(net, batch, steps=50, rates=(rate, 0), adam=optimizer == "adam")
    assert error(logits(net, batch), expected) < 1e-12
    if batch < len(LABELS):
        whole = learner("finetuner", inner_optimizer=optimizer)
        assert error(logits(whole, batch), expected) > 1e-3


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_adam_with_a_rate_of_a_thousandth_is_the_finetuner_of_orbits_code_since_2022(batch: int) -> None:
    net = learner("finetuner", inner_optimizer="adam", inner_lr=0.001)
    expected = official(net, batch, steps=50, rates=(0.001, 0), adam=True, weighed=True)
    assert error(logits(net, batch), expected) < 1e-12


@pytest.mark.parametrize("batch", [2, 16])
def test_the_papers_weighting_is_the_inner_loop_of_orbits_maml(batch: int) -> None:
    net = learner("maml", inner_weighting="paper")
    expected = official(net, batch, steps=15, rates=(0.001, 0.0001))
    assert error(logits(net, batch), expected) < 1e-12
    fast = learner("maml", inner_weighting="paper", inner_steps=3, inner_lr=0.05, inner_backbone_lr=0.02)
    expected = official(fast, batch, steps=3, rates=(0.05, 0.02))
    assert error(logits(fast, batch), expected) < 1e-12


def test_the_papers_weighting_holds_for_film_too() -> None:
    net = learner("finetuner_film", inner_weighting="paper", inner_steps=3, inner_lr=0.01)
    channels = net.backbone.film_channels
    film = [tensor.requires_grad_() for tensor in identity_film(channels, torch.zeros(1).double())]
    head = [
        torch.zeros(WAY, net.backbone.dim).double().requires_grad_(),
        torch.zeros(WAY).double().requires_grad_(),
    ]
    optimizer = torch.optim.Adam([*film, *head], lr=0.01)
    for _ in range(3):
        for images, labels in zip(torch.split(IMAGES, 3), torch.split(LABELS, 3), strict=True):
            features = net.backbone(images, film)
            torch.autograd.backward(cross_entropy(nn.functional.linear(features, *head), labels))
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        expected = nn.functional.linear(net.backbone(QUERIES, film), *head)
    assert error(logits(net, 3), expected) < 1e-10


# What is refused


@pytest.mark.parametrize(
    ("name", "options", "flag"),
    [
        ("protonets", {"inner_lr": 0.1}, "--inner-lr"),
        ("protonets_cosine", {"inner_weighting": "paper"}, "--inner-weighting"),
        ("simple_cnaps", {"inner_steps": 5}, "--inner-steps"),
        ("cnaps", {"one_shot": "official"}, "--one-shot"),
        ("finetuner", {"inner_backbone_lr": 0.1}, "--inner-backbone-lr"),
        ("finetuner", {"clamp": 10.0}, "--clamp"),
        ("finetuner_film", {"encoder_norm": "batch"}, "--encoder-norm"),
        ("maml", {"inner_optimizer": "adam"}, "--inner-optimizer"),
        ("maml", {"encoder_size": 0}, "--encoder-size"),
    ],
)
def test_an_option_of_another_learner_is_refused(name: str, options: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError) as refused:
        make_learner(name, "conv4", options=LearnerOptions(**options))
    assert str(refused.value) == f"{flag} does not apply to {name}; leave it out"


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("option", ["inner_lr", "inner_backbone_lr", "clamp"])
def test_a_number_out_of_range_is_refused(option: str, value: float) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(UsageError, match=rf"--{option.replace('_', '-')} is a positive number, or 0, got"):
        make_learner("maml", "conv4", options=LearnerOptions(**options))


@pytest.mark.parametrize(("name", "option"), [("maml", "inner_steps"), ("cnaps", "encoder_size")])
def test_a_negative_count_is_refused(name: str, option: str) -> None:
    options: dict[str, Any] = {option: -3}
    with pytest.raises(UsageError, match=r"is a positive number, or 0, got -3"):
        make_learner(name, "conv4", options=LearnerOptions(**options))


def test_every_option_is_one_of_some_learner() -> None:
    assert set().union(*(entry.options for entry in LEARNERS.values())) == set(OPTION_NAMES)


def test_a_frozen_backbone_starts_with_pretrained_weights_and_others_at_random() -> None:
    first = {name: entry.first_weights for name, entry in LEARNERS.items()}
    assert first == {
        "protonets": "random", "protonets_cosine": "random", "maml": "random", "cnaps": "pretrained",
        "simple_cnaps": "pretrained", "finetuner": "pretrained", "finetuner_film": "pretrained",
        "lda": "random", "logreg": "pretrained",
    }  # fmt: skip
