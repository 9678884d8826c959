"""The papers' loops against a re-implementation from their description (`tests/learners/lite/official.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from learners.learner import StagedLearner
from learners.lite.engine import Lite, SamplerName
from learners.lite.paper import shuffle_task
from learners.lite.queries import chunk_sizes
from learners.methods.protonets import ProtoNets
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import Backbone
from learners.networks.set_encoder import SetEncoder
from learners.task import Task
from pipeline.pixels import SYMMETRIC
from tests.learners.lite.official import OfficialLoop, OfficialTask, OwnNetworks, mahalanobis, nearest_means
from tests.learners.tasks import backbone, error, gathered, loud, rng, staged, task

PENALTY = 0.01
CHUNK = 4  # images of a batch, or clips


def simple_cnaps(norm: Literal["example", "batch"]) -> OwnNetworks:
    torch.manual_seed(1)
    encoder = SetEncoder(8, norm=norm, image_size=None)
    learner = loud(SimpleCNAPs(backbone(film=True), encoder=encoder, one_shot="official"))
    return OwnNetworks(learner, mahalanobis)


def protonets() -> OwnNetworks:
    return OwnNetworks(ProtoNets(backbone()), nearest_means)


def batch_protonets() -> OwnNetworks:
    """BatchNorm with the statistics of each batch, as ORBIT's code trains ProtoNets."""
    torch.manual_seed(2)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 5, stride=4), nn.BatchNorm2d(5), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    made = Backbone(net, name="toy", dim=5, normalisation=SYMMETRIC, norm="batch").double()
    return OwnNetworks(ProtoNets(made), nearest_means)


OWN: dict[str, Callable[[], OwnNetworks]] = {
    "protonets": protonets,
    "protonets, batch statistics": batch_protonets,
    "simple_cnaps": lambda: simple_cnaps("example"),
    "simple_cnaps, batch statistics": lambda: simple_cnaps("batch"),
}


def official(own: OwnNetworks, asked: Task, settings: Lite) -> tuple[Tensor, Tensor]:
    """The gradient and the loss of the re-implemented loop."""
    loop = OfficialLoop(settings.h, settings.chunk // asked.clip, settings.penalty)
    run = loop.lite if settings.sampler == "paper-lite" else loop.orbit
    loss = run(own, OfficialTask.of(asked), rng())
    return gathered(own.learner), loss


def differences(own: OwnNetworks, asked: Task, settings: Lite) -> tuple[float, float]:
    """Errors of gradient and loss."""
    wanted, loss = official(own, asked, settings)
    found, outcome = staged(own.learner, asked, settings)
    return error(found, wanted), abs(float(outcome.loss - loss))


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("sampler", ["paper-lite", "paper-orbit"])
@pytest.mark.parametrize("h", [3, 5, 50])
def test_the_loop_is_the_official_one(name: str, sampler: SamplerName, h: int) -> None:
    """4, 5, 7 and 9 queries are one to three batches; 5 and 9, and 9 support images, leave a single one."""
    own = OWN[name]()
    for queries in (4, 5, 7, 9):
        asked = task((4, 1, 4), queries=queries)
        settings = Lite(h=h, sampler=sampler, chunk=CHUNK, penalty=PENALTY)
        assert max(differences(own, asked, settings)) < 1e-10


@pytest.mark.parametrize("name", OWN)
def test_with_an_empty_h_the_vtab_md_loop_is_the_official_one(name: str) -> None:
    settings = Lite(h=0, sampler="paper-lite", chunk=CHUNK, penalty=PENALTY)
    assert max(differences(OWN[name](), task((4, 1, 4), queries=9), settings)) < 1e-10


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("sampler", ["paper-lite", "paper-orbit"])
def test_clips_pass_as_their_mean_in_both_loops(name: str, sampler: SamplerName) -> None:
    settings = Lite(h=3, sampler=sampler, chunk=2 * CHUNK, penalty=PENALTY)
    asked = task((3, 1, 3), queries=6, clip=2)
    assert max(differences(OWN[name](), asked, settings)) < 1e-10


@pytest.mark.parametrize("sampler", ["paper-lite", "paper-orbit"])
def test_with_statistics_of_a_batch_the_size_of_batches_matters(sampler: SamplerName) -> None:
    """So the tests above would notice caches that are made in other batches."""
    asked = task((4, 1, 4), queries=4)
    for name, least in (("simple_cnaps", 0.0), ("simple_cnaps, batch statistics", 1e-3)):
        own = OWN[name]()
        small, large = (
            staged(own.learner, asked, Lite(h=3, sampler=sampler, chunk=chunk))[0] for chunk in (4, 8)
        )
        assert error(small, large) < 1e-10 if not least else error(small, large) > least


def test_a_single_query_joins_the_batch_before_in_the_vtab_md_loop_only() -> None:
    assert chunk_sizes(81, 40, join_single=True) == [40, 41]
    assert chunk_sizes(81, 40) == [40, 40, 1]
    assert chunk_sizes(82, 40, join_single=True) == [40, 40, 2]
    assert chunk_sizes(1, 40, join_single=True) == [1]
    assert chunk_sizes(3, 1, join_single=True) == [1, 1, 1]
    own, asked = protonets(), task((3, 2), queries=5)
    settings = Lite(h=50, sampler="paper-lite", chunk=4, penalty=0)
    joined = staged(own.learner, asked, settings)[0]
    whole = staged(own.learner, asked, Lite(h=50, sampler="paper-lite", penalty=0))[0]
    assert error(joined, whole) < 1e-10
    apart = staged(own.learner, asked, Lite(h=5, sampler="paper-orbit", chunk=4, penalty=0))[0]
    assert error(apart, whole) > 0.1


def test_the_scale_multiplies_losses_and_penalties_of_both_loops() -> None:
    own, asked = simple_cnaps("batch"), task((4, 1, 4), queries=7)
    for sampler in ("paper-lite", "paper-orbit"):
        settings = Lite(h=3, sampler=sampler, chunk=CHUNK, penalty=PENALTY)
        whole = staged(own.learner, asked, settings)[0]
        own.learner.gradient(asked, settings, rng(), scale=0.25)
        assert error(gathered(own.learner), whole / 4) < 1e-12


def test_modules_and_frozen_parameters_are_left_alone() -> None:
    own, asked = simple_cnaps("batch"), task((4, 1, 4), queries=5)
    before = {name: value.clone() for name, value in own.learner.state_dict().items()}
    own.learner.gradient(asked, Lite(h=3, sampler="paper-lite", chunk=CHUNK), rng())
    assert all(torch.equal(value, before[name]) for name, value in own.learner.state_dict().items())
    assert all((p.grad is not None) == p.requires_grad for p in own.learner.parameters())


def saved_bytes(learner: StagedLearner, asked: Task, settings: Lite) -> int:
    """The most that is kept for one backward pass."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.gradient(asked, settings, rng())
    gathered(learner)
    return sum(kept)


def test_memory_does_not_grow_with_the_support_set() -> None:
    own = protonets()
    settings = Lite(h=4, sampler="paper-lite", chunk=CHUNK)
    small, large = (
        saved_bytes(own.learner, task(shots, queries=4), settings) for shots in ((4, 4), (40, 40))
    )
    assert large < small + 20 * 80 * 5 * 8  # features of 80 images, some times


def test_a_shuffled_task_has_the_same_clips_with_the_same_labels() -> None:
    asked = task((5, 4, 6), queries=8, batches=2, clip=3)
    mixed = shuffle_task(asked, rng())
    images, answers = mixed.joined_queries()
    before = OfficialTask.of(asked)
    pairs = ((before.support, before.labels, mixed.support, mixed.labels),
             (before.queries, before.answers, images, answers))  # fmt: skip
    for clips, labels, shuffled, names in pairs:
        found = torch.split(shuffled, 3)
        order = [next(i for i, clip in enumerate(clips) if torch.equal(clip, own)) for own in found]
        assert sorted(order) == list(range(len(clips)))
        assert order != sorted(order)
        assert torch.equal(names[::3], labels[order])
        assert torch.equal(names, names[::3].repeat_interleave(3))
    assert torch.equal(shuffle_task(asked, rng()).support, mixed.support)
    assert not torch.equal(shuffle_task(asked, rng(1)).support, mixed.support)
