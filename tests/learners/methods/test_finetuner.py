from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from learners.methods.descent import SupportDescent
from learners.methods.finetuner import FineTuner
from learners.networks.film import identity_film
from learners.task import ChunkedPass
from pipeline.errors import UsageError
from tests.learners.small import pictures, toy

IMAGES, LABELS = pictures(7, seed=1), torch.tensor([0, 1, 2, 0, 1, 0, 2])
QUERIES = pictures(5, seed=2)


@pytest.mark.parametrize(("name", "lr"), [("sgd", 0.1), ("adam", 0.001)])
def test_it_is_fifty_steps_of_the_optimizer_on_a_linear_layer(name: str, lr: float) -> None:
    net = toy()
    layer = nn.Linear(5, 3).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    kind = torch.optim.SGD if name == "sgd" else torch.optim.Adam
    optimizer = kind(layer.parameters(), lr=lr)
    features = net(IMAGES).detach()
    for _ in range(50):
        optimizer.zero_grad()
        torch.autograd.backward(cross_entropy(layer(features), LABELS))
        optimizer.step()
    with torch.no_grad():
        expected = layer(net(QUERIES))
    for batch in (2, 40):
        tuner = FineTuner(toy(), optimizer=name)
        found = tuner.adapt(IMAGES, LABELS, passage=ChunkedPass(chunk=batch)).logits(QUERIES)
        assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_film_is_tuned_with_the_head_and_the_backbone_stays(optimizer: str) -> None:
    net = toy(film=True)
    film = [tensor.requires_grad_() for tensor in identity_film(net.film_channels, torch.zeros(1).double())]
    head = [torch.zeros(3, 5).double().requires_grad_(), torch.zeros(3).double().requires_grad_()]
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
    steps = kind([*film, *head], lr=0.05)
    for _ in range(20):
        steps.zero_grad()
        logits = nn.functional.linear(net(IMAGES, film), *head)
        torch.autograd.backward(cross_entropy(logits, LABELS))
        steps.step()
    with torch.no_grad():
        expected = nn.functional.linear(net(QUERIES, film), *head)
    own = toy(film=True)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    tuner = FineTuner(own, film=True, optimizer=optimizer, lr=0.05, descent=SupportDescent(20))
    with torch.no_grad():
        classifier = tuner.adapt(IMAGES, LABELS, passage=ChunkedPass(chunk=3))
    assert (classifier.logits(QUERIES) - expected).abs().max() < 1e-11
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    plain = FineTuner(own, optimizer=optimizer, lr=0.05, descent=SupportDescent(20))
    assert not torch.equal(plain.adapt(IMAGES, LABELS).logits(QUERIES), expected)


def test_without_film_each_support_image_goes_through_the_backbone_once() -> None:
    net, passed = toy(), []
    net.net.register_forward_hook(lambda _module, inputs, _features: passed.append(len(inputs[0])))
    classifier = FineTuner(net).adapt(IMAGES, LABELS, passage=ChunkedPass(chunk=3))
    assert passed == [3, 3, 1]
    assert classifier(QUERIES).shape == (5, 3)


def test_the_papers_weighting_takes_longer_steps_with_more_batches() -> None:
    one, paper = (
        FineTuner(toy(), descent=SupportDescent(1, weighting))
        .adapt(IMAGES, LABELS, passage=ChunkedPass(chunk=1))
        .state[0]
        for weighting in ("whole", "paper")
    )
    assert (paper - 7 * one).abs().max() < 1e-12


def test_one_image_of_one_class_is_a_task() -> None:
    classifier = FineTuner(toy()).adapt(IMAGES[:1], LABELS[:1])
    assert torch.equal(classifier(QUERIES), torch.ones(5, 1).double())


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageError, match="film=True"):
        FineTuner(toy(), film=True)
    with pytest.raises(UsageError, match="the optimizer is one of sgd, adam"):
        FineTuner(toy(), optimizer="lion")
    with pytest.raises(UsageError, match="0 to 1 in a task of 2 classes, got also 2"):
        FineTuner(toy()).adapt(IMAGES, LABELS, way=2)
