from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.episodes import EPISODE_DRAW, H_DRAW, EpisodePlan, Side, choose_h, generator
from pipeline.errors import UsageError


def plan(support: int = 10, clip: int = 1, number: int = 4) -> EpisodePlan:
    return EpisodePlan(
        number=number,
        dataset="pets",
        classes=(7, 3),
        support=Side(np.arange(support), np.arange(support) % 2),
        query=Side(np.array([90, 91, 92]), np.array([0, 1, 1])),
        clip=clip,
    )


def test_a_plan_survives_json() -> None:
    first = plan()
    again = EpisodePlan.from_described(json.loads(json.dumps(first.described())))
    assert again == first
    assert hash(again) == hash(first)
    assert again.digest == first.digest
    assert again.support.rows.dtype == np.int64


def test_classes_may_be_given_as_numpy_numbers() -> None:
    ids = np.array([7, 3])
    given = EpisodePlan(
        number=4, dataset="pets", classes=tuple(ids), support=plan().support, query=plan().query
    )
    assert given == plan()
    assert given.classes == (7, 3)
    assert "2-way" in str(given)


def test_plans_differ_in_anything_that_they_say() -> None:
    others = [plan(number=5), plan(clip=2), plan(support=9)]
    assert len({plan(), *others}) == 4


def test_a_plan_reads_as_one_line() -> None:
    assert str(plan()).startswith("episode 4: pets, 2-way, 5 shots, 10 support, 3 query, ")
    assert "5-6 shots" in str(plan(11))


def test_rows_without_labels_are_refused() -> None:
    with pytest.raises(UsageError, match=r"one label per row"):
        Side(np.arange(3), np.arange(2))


def test_random_numbers_depend_on_seed_number_and_purpose_alone() -> None:
    def draw(seed: int, number: int, purpose: int = EPISODE_DRAW) -> bytes:
        return generator(seed, number, purpose).bytes(16)

    assert draw(1, 2) == draw(1, 2)
    different = [draw(1, 2), draw(2, 1), draw(1, 3), draw(2, 2), draw(1, 2, H_DRAW)]
    assert len(set(different)) == len(different)
    assert draw(2**64 - 1, 2**62)


@pytest.mark.parametrize(("seed", "number"), [(-1, 0), (0, -1), (2**64, 0)])
def test_impossible_seeds_and_numbers_are_refused(seed: int, number: int) -> None:
    with pytest.raises(UsageError, match=r"start at 0"):
        generator(seed, number)


def test_h_is_drawn_without_replacement_and_always_the_same() -> None:
    chosen = choose_h(plan(50), 20, seed=1)
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == 20
    assert chosen.tolist() == choose_h(plan(50), 20, seed=1).tolist()
    assert chosen.tolist() != choose_h(plan(50), 20, seed=2).tolist()
    assert chosen.tolist() != choose_h(plan(50, number=5), 20, seed=1).tolist()


def test_every_support_image_is_in_h_equally_often() -> None:
    draws, h, n = 4000, 3, 10
    counts = np.zeros(n)
    for number in range(draws):
        counts[choose_h(plan(n, number=number), h, seed=0)] += 1
    expected = draws * h / n
    spread = np.sqrt(draws * h / n * (1 - h / n))
    assert np.abs(counts - expected).max() < 4 * spread


@pytest.mark.parametrize(("h", "size"), [(0, 0), (10, 10), (99, 10)])
def test_h_may_be_none_or_all(h: int, size: int) -> None:
    assert len(choose_h(plan(), h, seed=0)) == size


def test_h_counts_clips_where_there_are_clips() -> None:
    chosen = choose_h(plan(24, clip=4), 2, seed=0)
    starts = chosen.reshape(2, 4)
    assert (starts[:, 0] % 4 == 0).all()
    assert (np.diff(starts, axis=1) == 1).all()


def test_a_negative_h_is_refused() -> None:
    with pytest.raises(UsageError, match=r"-1"):
        choose_h(plan(), -1, seed=0)
