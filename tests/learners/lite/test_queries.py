"""Queries of which only a drawn part is back-propagated through the backbone."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from learners.heads.prototypes import PrototypeHead
from learners.lite.draws import QueryScheme, draw_queries
from learners.lite.engine import Lite
from learners.methods.protonets import ProtoNets
from pipeline.errors import UsageError
from tests.learners.lite.test_draws import expected_weights
from tests.learners.lite.test_engine import part, saved_bytes
from tests.learners.tasks import (
    LEARNERS,
    Every,
    backbone,
    cnaps,
    error,
    expected,
    protonets,
    rng,
    staged,
    task,
    whole,
)

SCHEMES: list[QueryScheme] = ["uniform", "neyman"]
EXACT = Lite(sampler="exact", chunk=3)
quiet = pytest.mark.filterwarnings("ignore:h=. is less than 1.5")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_expected_weight_of_every_query_is_one(scheme: QueryScheme) -> None:
    sizes = np.array([0, 0.1, 1, 5, 0.5])
    for h in (1, 2, 4):
        outcomes = Every().all(partial(draw_queries, scheme, h, sizes=sizes))
        assert np.abs(expected_weights(outcomes, 5) - 1).max() < 1e-12
        assert all(len(np.unique(units)) == h for (units, _), _ in outcomes)


def test_neyman_takes_queries_with_larger_gradients_more_often() -> None:
    taken = np.zeros(6)
    for seed in range(300):
        taken[draw_queries("neyman", 2, rng(seed), np.array([1, 1, 1, 1, 4, 8.0])).units] += 1
    assert taken[5] > taken[4] > 2 * taken[:4].max()


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_gradients_of_no_use_make_the_draw_uniform(broken: float) -> None:
    drawn = draw_queries("neyman", 2, rng(), np.full(6, broken))
    assert (drawn.weights == 3).all()


@quiet
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_mean_over_all_draws_of_queries_is_the_full_gradient(name: str, scheme: QueryScheme) -> None:
    learner, asked = LEARNERS[name](), task((3, 2), queries=4, batches=2)
    full, loss = whole(learner, asked, penalty=0.001)
    settings = replace(EXACT, query_h=2, query_sampler=scheme)
    mean, count = expected(learner, asked, settings)
    assert count >= 3
    assert error(mean, full) < 1e-12
    one, outcome = staged(learner, asked, settings)
    assert float(outcome.loss) == pytest.approx(float(loss), rel=1e-12)
    assert outcome.queries == 4
    assert error(one, full) > 1e-4


@quiet
def test_draws_of_clips_and_of_the_support_set_leave_the_mean_alone() -> None:
    learner, asked = cnaps(), task((2, 2), queries=3, clip=2)
    full, _ = whole(learner, asked, penalty=0.001)
    mean, count = expected(
        learner, asked, Lite(h=3, sampler="uniform", query_h=1, query_sampler="uniform", chunk=4)
    )
    assert count == 3 * 4 * 4
    assert error(mean, full) < 1e-12


def test_the_heads_own_gradient_is_exact_whatever_is_drawn() -> None:
    learner, asked = cnaps(), task((3, 2), queries=6)
    full, _ = whole(learner, asked, penalty=0.001)
    one, _ = staged(learner, asked, replace(EXACT, query_h=1))
    assert error(part(one, learner, "head"), part(full, learner, "head")) < 1e-10
    assert error(part(one, learner, "generator"), part(full, learner, "generator")) > 1e-3


@pytest.mark.parametrize("name", LEARNERS)
def test_drawing_all_queries_has_the_bits_of_drawing_none(name: str) -> None:
    learner, asked = LEARNERS[name](), task((3, 2), queries=6)
    plain, _ = staged(learner, asked, Lite(h=4))
    for count in (6, 50):
        assert torch.equal(staged(learner, asked, Lite(h=4, query_h=count))[0], plain)


@quiet
def test_neyman_has_a_fraction_of_uniforms_error_where_few_queries_are_wrong() -> None:
    learner, asked = protonets(), task((4,) * 5, queries=40)
    assert isinstance(learner.head, PrototypeHead)
    learner.head.set_temperature(0.02)  # most answers are sure, right or wrong
    full, _ = whole(learner, asked)
    errors = {}
    for scheme in SCHEMES:
        settings = replace(EXACT, query_h=10, query_sampler=scheme)
        found = [staged(learner, asked, settings, rng(seed))[0] for seed in range(40)]
        errors[scheme] = sum(error(gradient, full) ** 2 for gradient in found) / len(found)
    assert errors["neyman"] < 0.7 * errors["uniform"]


def test_what_is_kept_for_backward_passes_does_not_grow_with_the_queries() -> None:
    learner, settings = cnaps(), Lite(h=8, chunk=8, query_h=8)
    few, many = (saved_bytes(learner, task((4,) * 4, queries=count), settings) for count in (16, 160))
    assert many <= 1.1 * few


def test_nothing_passes_again_where_nothing_before_the_head_learns() -> None:
    frozen = ProtoNets(backbone().requires_grad_(requires_grad=False))
    gradient, outcome = staged(frozen, task((3, 2)), replace(EXACT, query_h=2))
    assert gradient.norm() == 0
    assert outcome.queries == 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"query_h": 0}, "query_h starts at 1"),
        ({"query_h": 5, "sampler": "paper-lite"}, "the papers' loops back-propagate all queries"),
        ({"query_sampler": "exact"}, "the queries' sampler is one of neyman, uniform; got 'exact'"),
    ],
)
def test_settings_of_queries_that_cannot_be_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Lite(**wrong)  # type: ignore[arg-type]
