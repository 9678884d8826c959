"""n-way k-shot q-query: the same episode for the same number, always and anywhere."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.episodes import EpisodePlan
from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.samplers import Fixed
from pipeline.shardset import ShardSet
from tests.pipeline.samplers import chi_square
from tests.pipeline.samplers.synthetic import fake_dataset, shard_set, split_classes


def check_plan(plan: EpisodePlan, dataset: Dataset) -> None:
    """What holds of any episode drawn from classes."""
    assert len(set(plan.classes)) == plan.way
    rows = np.concatenate([plan.support.rows, plan.query.rows])
    assert len(set(rows.tolist())) == len(rows)
    for side in (plan.support, plan.query):
        assert set(side.labels.tolist()) == set(range(plan.way))
        class_ids = dataset.index["class_id"][side.rows]
        assert np.array_equal(class_ids, np.array(plan.classes)[side.labels])


def test_an_episode_has_the_ways_shots_and_queries_asked_for(built: Path) -> None:
    shards = ShardSet.open(built)
    sampler = Fixed(shards, split="", way=2, shot=3, query=4, seed=5)
    for number in (0, 1, 12_345, 10**12):
        plan = sampler[number]
        check_plan(plan, shards["pets"])
        assert plan.number == number
        assert plan.shots.tolist() == [3, 3]
        assert np.bincount(plan.query.labels).tolist() == [4, 4]


def test_shots_may_differ_and_each_class_gets_each_of_them(built: Path) -> None:
    shards = ShardSet.open(built)
    sampler = Fixed(shards, split="", way=3, shot=(1, 2, 5), query=2)
    shots_of_first = set()
    for number in range(30):
        plan = sampler[number]
        check_plan(plan, shards["pets"])
        assert sorted(plan.shots.tolist()) == [1, 2, 5]
        assert np.bincount(plan.query.labels).tolist() == [2, 2, 2]
        shots_of_first.add(int(plan.shots[plan.classes.index(0)]))
    assert shots_of_first == {1, 2, 5}


@pytest.mark.parametrize(
    ("shot", "message"),
    [
        ((1, 2), r"3 classes need one shot or 3, got 2"),
        ((1, 0, 2), r"start at 1"),
        ((1, 1, 10), r"11 images of each class, and class 'owl'"),
    ],
)
def test_shots_that_cannot_be_given_are_refused(built: Path, shot: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Fixed(ShardSet.open(built), split="", way=3, shot=shot, query=1)


def test_classes_and_images_are_equally_likely(built: Path) -> None:
    sampler = Fixed(ShardSet.open(built), split="", way=2, shot=1, query=1)
    plans = [sampler[number] for number in range(3000)]
    assert chi_square.equal_chances(list(Counter(plan.classes for plan in plans).values())) > 0.01
    cats = [plan.query.rows[label] for plan in plans for label in range(2) if not plan.classes[label]]
    assert chi_square.equal_chances(np.bincount(cats, minlength=30)) > 0.01


def test_an_episode_does_not_depend_on_those_asked_for_before(built: Path) -> None:
    shards = ShardSet.open(built)
    forward, backward = (Fixed(shards, split="", way=2, shot=2, query=2) for _ in range(2))
    first = [forward[number] for number in range(20)]
    assert [backward[number] for number in reversed(range(20))][::-1] == first
    other = Fixed(shards, split="", way=2, shot=2, query=2, seed=1)
    assert [other[number] for number in range(20)] != first


def test_two_processes_agree(built: Path) -> None:
    options = {"split": "", "way": 2, "shot": 2, "query": 2, "seed": 3}
    code = (
        "from pipeline.samplers import Fixed; from pipeline.shardset import ShardSet; "
        f"sampler = Fixed(ShardSet.open({str(built)!r}), **{options!r}); "
        "print(*(sampler[n].digest for n in (7, 3)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    sampler = Fixed(ShardSet.open(built), split="", way=2, shot=2, query=2, seed=3)
    assert done.stdout.split() == [sampler[7].digest, sampler[3].digest]


def mixed(weights: dict[str, float] | None = None, datasets: Sequence[str] | None = None) -> Fixed:
    sets = [fake_dataset(name, [9] * 6, split_classes(["train"] * 6)) for name in ("a", "b", "c")]
    sets.append(fake_dataset("tests", [9] * 6, split_classes(["test"] * 6)))
    return Fixed(shard_set(*sets), split="train", way=5, shot=1, query=1, datasets=datasets, weights=weights)


def test_datasets_with_the_split_are_mixed_evenly() -> None:
    sampler = mixed()
    found = Counter(sampler[number].dataset for number in range(3000))
    assert set(found) == {"a", "b", "c"}
    assert chi_square.equal_chances(list(found.values())) > 0.01


def test_datasets_are_mixed_by_weight() -> None:
    sampler = mixed({"a": 3, "b": 1}, ["b", "a"])
    found = Counter(sampler[number].dataset for number in range(3000))
    assert set(found) == {"a", "b"}
    assert 0.72 < found["a"] / 3000 < 0.78
    assert repr(sampler).endswith("of a 0.75, b 0.25)")


def test_the_order_in_which_datasets_are_named_is_nothing() -> None:
    one, other = mixed(datasets=["a", "c"]), mixed(datasets=["c", "a"])
    assert [one[n] for n in range(5)] == [other[n] for n in range(5)]


@pytest.mark.parametrize(
    ("datasets", "weights", "message"),
    [
        (["d"], None, "has no dataset 'd'; it has a, b, c, tests"),
        (["tests"], None, "tests has nothing in the split 'train'; it has 'test'"),
        ([], None, "a list of different names"),
        ("a", None, "a list of different names"),
        (["a", "a"], None, "a list of different names"),
        (None, {"a": 1.0}, "one weight for each of a, b, c; got a"),
        (["a"], {"a": 0.0}, "positive numbers"),
        (["a"], {"a": float("nan")}, "positive numbers"),
    ],
)
def test_a_mixture_that_cannot_be_is_refused(
    datasets: Sequence[str] | None, weights: dict[str, float] | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        mixed(weights, datasets)


def test_what_the_data_cannot_give_is_refused_at_once_and_by_name(built: Path) -> None:
    shards = ShardSet.open(built)
    with pytest.raises(UsageError, match=r"of 4 classes is asked for and pets, .* has 3"):
        Fixed(shards, split="", way=4, shot=1, query=1)
    with pytest.raises(UsageError, match=r"of 10{30} classes is asked for"):
        Fixed(shards, split="", way=10**30, shot=1, query=1)
    with pytest.raises(UsageError, match=r"11 images of each class, and class 'owl' of pets.* has 10"):
        Fixed(shards, split="", way=3, shot=1, query=10)
    with pytest.raises(UsageError, match=r"no dataset of .* has the split 'train'; it has pets"):
        Fixed(shards, split="train", way=2, shot=1, query=1)
    larger = Fixed(shards, split="", way=2, shot=1, query=10, min_examples_in_class=11)
    assert set(larger[0].classes) == {0, 1}


@pytest.mark.parametrize("options", [{"way": 0}, {"shot": 0}, {"query": 0}])
def test_nothing_of_something_is_refused(built: Path, options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="start at 1"):
        Fixed(ShardSet.open(built), **{"split": "", "way": 2, "shot": 1, "query": 1, **options})  # type: ignore[arg-type]


def test_seeds_and_numbers_start_at_0(built: Path) -> None:
    shards = ShardSet.open(built)
    with pytest.raises(UsageError, match="start at 0"):
        Fixed(shards, split="", way=2, shot=1, query=1, seed=-1)
    with pytest.raises(UsageError, match="start at 0"):
        Fixed(shards, split="", way=2, shot=1, query=1)[-1]


# Within a superclass

ALPHABETS = ["greek"] * 5 + ["latin"] * 4 + ["morse"] * 2


def alphabets(way: int, names: Sequence[str] = ALPHABETS, **options: Any) -> Fixed:
    """Characters of three alphabets, nine drawings each."""
    characters = fake_dataset("characters", [9] * len(names), split_classes(["test"] * len(names), names))
    return Fixed(shard_set(characters), split="test", way=way, shot=2, query=1, within=True, **options)


def test_classes_of_one_superclass_make_an_episode_and_each_is_as_likely() -> None:
    sampler = alphabets(2)
    dataset = sampler._mixture.pools[0].dataset
    groups: Counter[str] = Counter()
    classes: Counter[int] = Counter()
    for number in range(3000):
        plan = sampler[number]
        check_plan(plan, dataset)
        (group,) = {ALPHABETS[class_id] for class_id in plan.classes}
        groups[group] += 1
        classes.update(plan.classes)
    assert chi_square.equal_chances(list(groups.values())) > 0.01
    for alphabet in set(ALPHABETS):
        own = [classes[i] for i, name in enumerate(ALPHABETS) if name == alphabet]
        assert chi_square.equal_chances(own) > 0.01
    assert "within superclasses" in repr(sampler)


def test_superclasses_with_too_few_classes_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    sampler = alphabets(4)
    (words,) = sampler.left_out
    assert words.endswith("1 of 3 superclasses have fewer than 4 classes and are left out: morse")
    assert words in caplog.text
    drawn = {ALPHABETS[class_id] for number in range(50) for class_id in sampler[number].classes}
    assert drawn == {"greek", "latin"}


def test_classes_left_out_for_their_size_do_not_count_within_a_superclass() -> None:
    counts = [9] * 5 + [9, 9, 2, 2] + [9] * 2
    dataset = fake_dataset("characters", counts, split_classes(["test"] * 11, ALPHABETS))
    sampler = Fixed(
        shard_set(dataset), split="test", way=3, shot=2, query=1, within=True, min_examples_in_class=3
    )  # fmt: skip
    assert {class_id for n in range(50) for class_id in sampler[n].classes} == {0, 1, 2, 3, 4}


def test_episodes_across_superclasses_are_what_they_were() -> None:
    dataset = fake_dataset("characters", [9] * 11, split_classes(["test"] * 11, ALPHABETS))
    plan = Fixed(shard_set(dataset), split="test", way=3, shot=2, query=1, seed=4)[7]
    assert plan.digest.startswith("dfdcdbaaf162")


def test_what_superclasses_cannot_give_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"6 classes of one superclass .* largest of its 3 superclasses has 5"
    ):
        alphabets(6)
    with pytest.raises(UsageError, match="its classes have no superclasses to draw within"):
        alphabets(2, ["greek"] * 5 + [""] * 2)
