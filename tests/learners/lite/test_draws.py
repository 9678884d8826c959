from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from learners.labels import Labels
from learners.lite.draws import (
    Scheme,
    UnitDraw,
    allocate,
    balanced,
    draw_support,
    inclusion,
    systematic,
    unweighted,
)
from tests.learners.tasks import Every, rng, shuffled, starts

SAMPLED: list[Scheme] = ["uniform", "stratified", "neyman"]


def labels(*shots: int) -> Labels:
    return Labels.checked(shuffled(shots))


def sizes(known: Labels, seed: int = 0) -> np.ndarray:
    """Of gradients: alike within a class, different between classes."""
    return (1 + rng(seed).random(len(known)) / 9) * (1 + 3 * known.values) / known.counts[known.values]


def mean_weights(draws: list[UnitDraw], total: int) -> np.ndarray:
    return expected_weights([(one, 1 / len(draws)) for one in draws], total)


def expected_weights(outcomes: list[tuple[UnitDraw, float]], total: int) -> np.ndarray:
    weights = np.zeros(total)
    for (units, values), chance in outcomes:
        weights[units] += values * chance
    return weights


@pytest.mark.parametrize("scheme", SAMPLED)
def test_the_expected_weight_of_every_unit_is_one(scheme: Scheme) -> None:
    known = labels(4, 1, 3)
    for h in (3, 4, 6):
        outcomes = Every().all(partial(draw_support, scheme, known, h, sizes=sizes(known)))
        assert np.abs(expected_weights(outcomes, 8) - 1).max() < 1e-12
        assert all(len(np.unique(units)) == h for (units, _), _ in outcomes)


@pytest.mark.parametrize("scheme", ["stratified", "neyman"])
def test_with_fewer_units_than_classes_the_expected_weight_is_still_one(scheme: Scheme) -> None:
    known = labels(4, 1, 3, 2, 5)
    for h in (1, 3, 4):
        draws = [draw_support(scheme, known, h, rng(seed), sizes(known)) for seed in range(4000)]
        weights = mean_weights(draws, 15)
        spread = np.sqrt(np.square([w.max() for _, w in draws]).mean() / len(draws) * 15 / h)
        assert np.abs(weights - 1).max() < 4 * spread
        assert {len(np.unique(units)) for units, _ in draws} == {h}


def test_systematic_places_are_taken_as_often_as_their_chance_says() -> None:
    for seed in range(20):
        chances = inclusion(rng(seed).random(9) ** 4 + 1e-3, 4)
        assert chances.sum() == pytest.approx(4)
        taken = np.zeros(9)
        for begin, end in itertools.pairwise(starts(chances)):
            places = systematic(chances, (begin + end) / 2)
            assert len(np.unique(places)) == 4
            taken[places] += end - begin
        assert np.abs(taken - chances).max() < 1e-12


def test_chances_are_in_proportion_and_never_above_one() -> None:
    assert inclusion(np.array([1.0, 1, 2]), 2) == pytest.approx([0.5, 0.5, 1])
    assert inclusion(np.array([1.0, 1, 1, 97]), 2) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])


def test_allocation_has_the_least_variance_of_all() -> None:
    counts = np.array([5, 2, 1, 7])
    for seed, h in itertools.product(range(5), (4, 6, 9, 14)):
        means = rng(seed).random(4) ** 3
        options = [
            np.array(option)
            for option in itertools.product(*(range(1, count + 1) for count in counts))
            if sum(option) == h
        ]
        variances = [((counts * means) ** 2 * (1 / option - 1 / counts)).sum() for option in options]
        found = allocate(counts, means, h)
        assert found.sum() == h
        assert (found <= counts).all()
        variance = ((counts * means) ** 2 * (1 / found - 1 / counts)).sum()
        assert variance == pytest.approx(min(variances))


def test_neyman_takes_more_where_gradients_are_larger_and_stratified_in_proportion() -> None:
    known = labels(10, 10, 20)
    large = np.where(known.values == 1, 9.0, 1.0)
    found = known.values[draw_support("neyman", known, 12, rng(), large).units]
    assert np.bincount(found).tolist() == [1, 9, 2]
    found = known.values[draw_support("stratified", known, 12, rng(), large).units]
    assert np.bincount(found).tolist() == [3, 3, 6]


def test_neyman_takes_the_larger_gradients_of_a_class_more_often() -> None:
    known = labels(1, 4)
    own = np.flatnonzero(known.values == 1)
    norms = np.ones(5)
    norms[own[2]] = 4
    outcomes = Every().all(partial(draw_support, "neyman", known, 2, sizes=norms))
    often = np.zeros(5)
    for (units, weights), chance in outcomes:
        often[units] += chance
        assert weights[units == own[2]] == pytest.approx(1 / (0.9 * 4 / 7 + 0.1 / 4))
    assert often[own] == pytest.approx(0.9 * norms[own] / 7 + 0.1 / 4)


def test_a_class_without_gradient_is_drawn_from_alike() -> None:
    known = labels(3, 3)
    norms = np.where(known.values == 0, 1.0, 0.0)
    outcomes = Every().all(partial(draw_support, "neyman", known, 3, sizes=norms))
    assert np.abs(expected_weights(outcomes, 6) - 1).max() < 1e-12


@pytest.mark.parametrize("scheme", ["exact", *SAMPLED])
def test_h_of_all_units_or_more_takes_each_once_with_weight_one(scheme: Scheme) -> None:
    known = labels(2, 3)
    for h in (5, 6, 1000):
        units, weights = draw_support(scheme, known, h, rng(), np.ones(5))
        assert units.tolist() == [0, 1, 2, 3, 4]
        assert (weights == 1).all()


def test_h_of_nought_takes_no_unit_but_exact_takes_all() -> None:
    known = labels(2, 3)
    for scheme in SAMPLED:
        assert len(draw_support(scheme, known, 0, rng(), np.ones(5)).units) == 0
    assert len(draw_support("none", known, 5, rng()).units) == 0
    assert len(draw_support("exact", known, 0, rng()).units) == 5
    assert len(unweighted(known, 0, rng()).units) == 0


@pytest.mark.parametrize("scheme", SAMPLED)
@pytest.mark.parametrize("h", [2, 6])
def test_a_draw_depends_on_its_generator_alone(scheme: Scheme, h: int) -> None:
    known = labels(4, 4, 4)
    one, same, other = (draw_support(scheme, known, h, rng(s), sizes(known)) for s in (1, 1, 2))
    assert one.units.tolist() == same.units.tolist() == sorted(one.units)
    assert one.weights.tolist() == same.weights.tolist()
    assert one.units.tolist() != other.units.tolist()


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
@pytest.mark.parametrize("h", [2, 6])
def test_gradients_of_no_use_make_the_draw_stratified(broken: float, h: int) -> None:
    known = labels(4, 4, 4)
    found = draw_support("neyman", known, h, rng(), np.full(12, broken))
    expected = draw_support("stratified", known, h, rng())
    assert found.units.tolist() == expected.units.tolist()
    assert np.isfinite(found.weights).all()


def test_the_papers_draw_is_uniform_with_weight_one() -> None:
    outcomes = Every().all(lambda one: unweighted(labels(3, 2), 2, one))
    assert expected_weights(outcomes, 5) == pytest.approx(np.full(5, 2 / 5))
    assert unweighted(labels(3, 2), 9, rng()).units.tolist() == [0, 1, 2, 3, 4]


def test_a_balanced_part_has_classes_as_equal_as_they_can_be_and_none_empty() -> None:
    known = labels(1, 9, 4, 20)
    for h, expected in ((13, [1, 4, 4, 4]), (2, [1, 1, 1, 1]), (25, [1, 9, 4, 11]), (99, [1, 9, 4, 20])):
        found = np.bincount(known.values[balanced(known, h, rng())])
        assert found.tolist() == expected


def test_labels_of_one_class_only_can_be_drawn_from() -> None:
    known = Labels.checked(torch.zeros(6, dtype=torch.int64))
    for scheme in SAMPLED:
        assert len(draw_support(scheme, known, 2, rng(), np.ones(6)).units) == 2
