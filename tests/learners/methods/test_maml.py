from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import cross_entropy, linear

from learners.lite.engine import Lite
from learners.methods.descent import SupportDescent
from learners.methods.maml import MAML, InnerRates
from learners.networks import backbone
from learners.task import ChunkedPass, Task
from pipeline.episodes import generator
from pipeline.errors import UsageError
from tests.learners.small import pictures, toy

WAY, COUNT = 3, 7
IMAGES, LABELS = pictures(COUNT, seed=1), torch.tensor([0, 1, 2, 0, 1, 0, 2])
QUERIES, TARGETS = pictures(5, seed=2), torch.tensor([2, 1, 0, 0, 1])
RNG = generator(0, 0)
RATES = InnerRates(head=0.5, backbone=0.05)


def task(batch: int = 5, targets: Tensor = TARGETS) -> Task:
    queries = zip(torch.split(QUERIES, batch), torch.split(targets, batch), strict=True)
    return Task(images=IMAGES, labels=LABELS, way=WAY, queries=queries, query_count=5)


def by_definition(steps: int, parts: list[int]) -> tuple[dict[str, Tensor], float]:
    """The first-order gradient and the loss, each inner step adding up the mean losses of parts."""
    net = toy()
    head = {"w": torch.zeros(WAY, 5).double(), "b": torch.zeros(WAY).double()}
    values = {name: parameter.detach() for name, parameter in net.named_parameters()}
    rates = dict.fromkeys(values, RATES.backbone) | dict.fromkeys(head, RATES.head)
    every = values | head

    def loss(every: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        own = {name: value for name, value in every.items() if name not in head}
        features = functional_call(net, own, (images,))
        return cross_entropy(linear(features, every["w"], every["b"]), labels)

    def gradient(losses: Tensor) -> dict[str, Tensor]:
        return dict(zip(every, torch.autograd.grad(losses, list(every.values())), strict=True))

    for _ in range(steps):
        every = {name: value.detach().requires_grad_() for name, value in every.items()}
        pieces = zip(torch.split(IMAGES, parts), torch.split(LABELS, parts), strict=True)
        change = gradient(torch.stack([loss(every, *piece) for piece in pieces]).sum())
        every = {name: value - rates[name] * change[name] for name, value in every.items()}
    every = {name: value.detach().requires_grad_() for name, value in every.items()}
    final = loss(every, QUERIES, TARGETS)
    return gradient(final), final.item()


def gradients(learner: MAML) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in learner.backbone.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def close(found: dict[str, Tensor], expected: dict[str, Tensor], factor: float = 1.0) -> bool:
    scale = max(float(gradient.abs().max()) for gradient in expected.values()) * factor
    return bool(found) and all(
        float((found[name] - factor * expected[name]).abs().max()) < 1e-12 * scale for name in found
    )


@pytest.mark.parametrize("batch", [1, 3, 40])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_the_gradient_is_that_of_the_whole_support_set_whatever_the_batches(batch: int, size: int) -> None:
    expected, loss = by_definition(4, [COUNT])
    learner = MAML(toy(), descent=SupportDescent(4), rates=RATES)
    before = [parameter.detach().clone() for parameter in learner.parameters()]
    outcome = learner.gradient(task(size), Lite(chunk=batch), RNG)
    assert close(gradients(learner), expected)
    assert outcome.loss.item() == pytest.approx(loss, rel=1e-12)
    assert (outcome.queries, outcome.h) == (5, {"backbone": 4 * COUNT})
    for parameter, value in zip(learner.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_the_papers_weighting_adds_up_the_means_of_batches() -> None:
    expected, loss = by_definition(4, [3, 3, 1])
    learner = MAML(toy(), descent=SupportDescent(4, "paper"), rates=RATES)
    assert learner.gradient(task(), Lite(chunk=3), RNG).loss.item() == pytest.approx(loss)
    assert close(gradients(learner), expected)
    assert not close(gradients(learner), by_definition(4, [COUNT])[0])


def test_gradients_of_tasks_add_up_with_their_scale() -> None:
    expected, _ = by_definition(2, [COUNT])
    learner = MAML(toy(), descent=SupportDescent(2), rates=RATES)
    for scale in (0.25, 1.5):
        learner.gradient(task(2), Lite(), RNG, scale=scale)
    assert close(gradients(learner), expected, 1.75)


def test_gradients_are_clamped_only_when_asked() -> None:
    expected, _ = by_definition(2, [COUNT])
    bound = max(float(gradient.abs().max()) for gradient in expected.values()) / 2
    learner = MAML(toy(), descent=SupportDescent(2), rates=RATES, clamp=bound)
    learner.gradient(task(), Lite(), RNG)
    found = gradients(learner)
    assert close(found, {name: g.clamp(-bound, bound) for name, g in expected.items()})
    with pytest.raises(UsageError, match="positive"):
        MAML(toy(), clamp=0)


def test_accuracy_is_counted_and_adapting_fits_the_support_set_without_a_trace() -> None:
    learner = MAML(toy(), descent=SupportDescent(300), rates=InnerRates(head=0.5, backbone=0.5))
    again = [(IMAGES, LABELS)]
    shown = Task(images=IMAGES, labels=LABELS, way=WAY, queries=again, query_count=COUNT)
    outcome = learner.gradient(shown, Lite(), RNG)
    assert (outcome.correct.item(), outcome.queries) == (COUNT, COUNT)
    learner.zero_grad()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    with torch.no_grad():
        classifier = learner.adapt(IMAGES, LABELS)
    probabilities = classifier(IMAGES)
    assert torch.equal(probabilities.argmax(1), LABELS)
    assert torch.allclose(probabilities.sum(1), torch.ones(COUNT).double())
    loss = cross_entropy(classifier.logits(IMAGES), LABELS).item()
    assert loss == pytest.approx(outcome.loss.item(), rel=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert not gradients(learner)


def test_parameters_come_back_when_the_queries_fail() -> None:
    learner = MAML(toy(), descent=SupportDescent(3), rates=RATES)
    before = [parameter.detach().clone() for parameter in learner.parameters()]

    def broken() -> Iterator[tuple[Tensor, Tensor]]:
        yield QUERIES[:2], TARGETS[:2]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        learner.gradient(replace(task(), queries=broken()), Lite(), RNG)
    for parameter, value in zip(learner.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


def test_frozen_parameters_stay() -> None:
    net = toy()
    net.net.get_submodule("0").requires_grad_(requires_grad=False)
    learner = MAML(net, descent=SupportDescent(2), rates=RATES)
    learner.gradient(task(), Lite(), RNG)
    assert {name.split(".")[1] for name in gradients(learner)} == {"1"}


def test_frames_of_a_clip_count_as_one() -> None:
    """Two equal frames per clip are the task of single images."""
    expected, _ = by_definition(3, [COUNT])
    twice = Task(
        images=IMAGES.repeat_interleave(2, 0),
        labels=LABELS.repeat_interleave(2),
        way=WAY,
        queries=[(QUERIES.repeat_interleave(2, 0), TARGETS.repeat_interleave(2))],
        query_count=10,
        clip=2,
    )
    learner = MAML(toy(), descent=SupportDescent(3), rates=RATES)
    assert learner.gradient(twice, Lite(chunk=4), RNG).queries == 5
    assert close(gradients(learner), expected)
    classifier = learner.adapt(twice.support, twice.labels, passage=ChunkedPass(clip=2))
    single = learner.adapt(IMAGES, LABELS)
    images = QUERIES.repeat_interleave(2, 0)
    assert torch.allclose(classifier(images), single(QUERIES), atol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": [(QUERIES, TARGETS + 1)]}, "query labels are 0 to 2.*1 of 5 are not"),
        ({"query_count": 6}, "said to have 6 queries and handed over 5"),
        ({"labels": LABELS + 1, "way": 4}, "of 4 classes 0 have none"),
    ],
)
def test_bad_tasks_are_refused(change: dict[str, Any], message: str) -> None:
    learner = MAML(toy(), descent=SupportDescent(1))
    with pytest.raises(UsageError, match=message):
        learner.gradient(replace(task(), **change), Lite(), RNG)


def test_descents_and_backbones_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="is 0 to 10,000, got -1"):
        SupportDescent(-1)
    with pytest.raises(UsageError, match=r"with a label each, got images of shape \(7, .* and 3 labels"):
        MAML(toy()).adapt(IMAGES, LABELS[:3])
    with pytest.raises(UsageError, match="the weighting of chunks is one of whole, paper"):
        SupportDescent(3, weighting="mean")
    with pytest.raises(UsageError, match="norm='example'"):
        MAML(backbone("conv4", norm="batch"))


def test_no_steps_leave_every_class_as_likely() -> None:
    classifier = MAML(toy(), descent=SupportDescent(0)).adapt(IMAGES, LABELS)
    assert (classifier(QUERIES) - 1 / WAY).abs().max() < 1e-15
