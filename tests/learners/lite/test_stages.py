"""A small task passes each stage once, with its graph; a larger one twice."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor

from learners.learner import StagedLearner
from learners.lite import engine
from learners.lite.engine import Lite, Outcome
from tests.learners.tasks import LEARNERS, error, staged, task, whole

SHOTS, QUERIES = (3, 1, 4), 6
PASSES = {"protonets": {"backbone": 2}, "simple_cnaps": {"backbone": 2, "encoder": 1}}  # once and the queries


def counted(learner: StagedLearner, settings: Lite, clip: int = 1) -> tuple[Tensor, Outcome, dict[str, int]]:
    """The gradient, and the passes through each network."""
    passes: Counter[str] = Counter()
    hooks = [
        network.register_forward_pre_hook(lambda *_, name=name: passes.update([name]))
        for name, network in (("backbone", learner.backbone), ("encoder", learner.encoder))
        if network is not None
    ]
    gradient, outcome = staged(learner, task(SHOTS, queries=QUERIES, clip=clip), settings)
    for hook in hooks:
        hook.remove()
    return gradient, outcome, dict(passes)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("clip", [1, 2])
@pytest.mark.parametrize(
    "changes", [{}, {"sampler": "exact", "h": 2}, {"sampler": "uniform"}, {"query_h": 2}]
)
def test_a_pass_that_keeps_its_graph_gives_the_bits_of_two_passes(
    monkeypatch: pytest.MonkeyPatch, name: str, clip: int, changes: dict[str, Any]
) -> None:
    settings = Lite(**{"h": 8, "chunk": 100, **changes})
    once, outcome, passes = counted(LEARNERS[name](), settings, clip)
    monkeypatch.setattr(engine, "_passed_once", lambda *_: [])
    twice, again, more = counted(LEARNERS[name](), settings, clip)
    assert more == {network: count + 1 for network, count in passes.items()}
    assert torch.equal(once, twice)
    assert outcome.h == again.h


@pytest.mark.parametrize(("name", "expected"), PASSES.items())
def test_it_is_the_gradient_of_the_whole_graph(name: str, expected: dict[str, int]) -> None:
    found, _, passes = counted(LEARNERS[name](), Lite(h=8, chunk=100, penalty=0.1))
    wanted, _ = whole(LEARNERS[name](), task(SHOTS, queries=QUERIES), penalty=0.1)
    assert passes == expected
    assert error(found, wanted) < 1e-12


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (Lite(h=8, chunk=22), True),  # 8 images in each of two stages, and 6 queries
        (Lite(h=8, chunk=21), False),
        (Lite(h=7, chunk=100), False),
        (Lite(h=7, chunk=14, encoder_sampler="exact"), True),  # the encoder's alone
        (Lite(sampler="none", chunk=100), False),
        (Lite(h=8, chunk=100, sampler="paper-lite"), False),
    ],
)
def test_graphs_are_kept_where_all_units_are_in_h_and_all_graphs_are_a_chunk(
    settings: Lite,
    kept: bool,  # noqa: FBT001
) -> None:
    passes = counted(LEARNERS["simple_cnaps"](), settings)[2]
    assert (passes["encoder"] == 1) == kept


def test_a_network_that_counts_its_passes_gets_all_of_them() -> None:
    """BatchNorm's statistics move with each pass."""
    learner = LEARNERS["protonets"]()
    learner.backbone.norm = "batch"
    assert learner.backbone.mixes_images
    assert counted(learner, Lite(h=8, chunk=100))[2] == {"backbone": 3}
