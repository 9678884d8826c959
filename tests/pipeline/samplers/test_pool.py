"""A pool has the classes of a split and draws their images evenly, in whatever order they are stored."""

from __future__ import annotations

import itertools
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.samplers import pool as pool_module
from pipeline.samplers.fixed import Fixed
from pipeline.samplers.pool import Pool, draw_distinct
from tests.pipeline.samplers import chi_square
from tests.pipeline.samplers.synthetic import fake_dataset, shard_set, split_classes


def test_a_split_of_whole_classes_needs_no_rows_of_its_own() -> None:
    dataset = fake_dataset("birds", [4, 5, 6], split_classes(["train", "test", "train"]))
    pool = Pool.of(dataset, "train")
    assert pool.class_ids.tolist() == [0, 2]
    assert pool.counts.tolist() == [4, 6]
    assert pool.starts.tolist() == [0, 9]
    assert pool.rows is None
    assert str(pool) == "birds, train"


def test_a_split_of_samples_has_the_rows_of_its_own_samples() -> None:
    splits = ["train", "test", "train", "train", "test", "test", "train"]
    dataset = fake_dataset("digits", [3, 2, 2], words={"split": splits})
    pool = Pool.of(dataset, "train")
    assert pool.counts.tolist() == [2, 1, 1]
    assert pool.rows is not None
    assert pool.rows.tolist() == [0, 2, 3, 6]
    test = Pool.of(dataset, "test")
    classes, shots = np.array([2, 0]), np.array([0, 0])
    assert test.plan(np.random.RandomState(0), 0, classes, shots, 1).query.rows.tolist() == [5, 1]


def test_without_a_split_every_class_is_there(built: Path) -> None:
    pool = Pool.of(Dataset.open(built))
    assert pool.counts.tolist() == [30, 20, 10]
    assert str(pool) == "pets, all splits"


def test_small_classes_can_be_left_out() -> None:
    pool = Pool.of(fake_dataset("birds", [4, 5, 6]), min_examples_in_class=5)
    assert pool.class_ids.tolist() == [1, 2]


def test_a_class_whose_images_were_all_rejected_stays_visible() -> None:
    dataset = fake_dataset("birds", [4, 0, 6], split_classes(["train"] * 3))
    with pytest.raises(UsageError, match=r"class 'class 1' of birds, train has 0"):
        Pool.of(dataset, "train").require(classes=3, images=2)


def test_an_absent_split_names_those_that_are_there() -> None:
    dataset = fake_dataset("signs", [4, 5], split_classes(["test", "test"]))
    with pytest.raises(UsageError, match=r"signs has nothing in the split 'train'; it has 'test'"):
        Pool.of(dataset, "train")
    with pytest.raises(UsageError, match=r"a split is one of 'train', .*; got 'valid'"):
        Pool.of(dataset, "valid")


@pytest.fixture(params=["compiled", "uncompiled"])
def draw_implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the compiled draw, and without it."""
    if request.param == "uncompiled":
        monkeypatch.setattr(pool_module, "deal", None)
    elif find_spec("pipeline.samplers.native") is None:
        pytest.skip("not compiled here: that takes a C compiler")


@pytest.mark.usefixtures("draw_implementation")
def test_drawn_numbers_are_different_and_within_their_class() -> None:
    random = np.random.RandomState(0)
    sizes, counts = np.array([1, 7, 10**12, 30]), np.array([1, 7, 40, 10])
    for _ in range(200):
        parts = np.split(draw_distinct(random, sizes, counts), counts.cumsum()[:-1])
        for part, size, count in zip(parts, sizes, counts, strict=True):
            assert len(set(part.tolist())) == count
            assert part.min() >= 0
            assert part.max() < size


@pytest.mark.usefixtures("draw_implementation")
def test_every_order_of_every_choice_is_equally_likely() -> None:
    random = np.random.RandomState(0)
    draws = 24_000
    found = Counter(tuple(draw_distinct(random, np.array([4]), np.array([3])).tolist()) for _ in range(draws))
    assert set(found) == set(itertools.permutations(range(4), 3))
    assert chi_square.equal_chances(list(found.values())) > 0.01


@pytest.mark.usefixtures("draw_implementation")
def test_a_row_is_as_likely_in_the_first_place_as_in_the_last_of_a_large_class() -> None:
    random = np.random.RandomState(0)
    drawn = np.array([draw_distinct(random, np.array([50]), np.array([20])) for _ in range(5000)])
    for place in (0, 10, 19):
        assert chi_square.equal_chances(np.bincount(drawn[:, place], minlength=50)) > 0.01


def test_the_compiled_draw_gives_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pipeline.samplers.native", exc_type=ImportError)
    random = np.random.default_rng(0)
    compiled, uncompiled = [], []
    for seed in range(300):
        most = random.choice([1, 3, 100, 10**6])
        sizes = random.integers(1, most + 1, random.integers(1, 40))
        counts = np.minimum(sizes, random.integers(0, 40, len(sizes)))
        counts[0] = max(counts[0], 1)
        compiled.append(draw_distinct(np.random.RandomState(seed), sizes, counts).tolist())
        with monkeypatch.context() as patch:
            patch.setattr(pool_module, "deal", None)
            uncompiled.append(draw_distinct(np.random.RandomState(seed), sizes, counts).tolist())
    assert compiled == uncompiled


def test_the_compiled_draw_refuses_wrong_arguments() -> None:
    native = pytest.importorskip("pipeline.samplers.native", exc_type=ImportError)
    two, three = np.arange(2), np.arange(3)
    frozen = three.copy()
    frozen.setflags(write=False)
    for error, tops, places in (
        (ValueError, two, three),
        (ValueError, three, three - 1),
        (ValueError, three - 1, three.copy()),
        (TypeError, [0, 1], two),
        ((ValueError, TypeError, BufferError), three, frozen),
    ):
        with pytest.raises(error):
            native.deal(tops, places)
    native.deal(two[:0], two[:0])


def test_images_of_one_track_are_no_likelier_together_than_chance() -> None:
    # As in Traffic Sign before any shuffle: 30 frames of a track side by side, 10 tracks a class.
    tracks, frames, shot, query = 10, 30, 5, 5
    dataset = fake_dataset("signs", [tracks * frames] * 5, split_classes(["test"] * 5))
    sampler = Fixed(shard_set(dataset), split="test", way=5, shot=shot, query=query)
    episodes = 2000
    together = np.zeros(episodes)
    for number in range(episodes):
        plan = sampler[number]
        support, queries = (side.rows.reshape(5, -1) // frames for side in (plan.support, plan.query))
        together[number] = (support[:, :, None] == queries[:, None, :]).mean()
    chance = (frames - 1) / (tracks * frames - 1)
    error = together.std() / episodes**0.5
    assert abs(together.mean() - chance) < 2.58 * error  # p > 0.01
    assert error < chance / 50  # fine enough to see a bias of a few hundredths
