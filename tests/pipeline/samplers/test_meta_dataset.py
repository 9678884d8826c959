"""Meta-Dataset's episodes: valid for any number, the same for ever, refused early when impossible."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.samplers import MetaDataset
from pipeline.shardset import ShardSet
from tests.pipeline.samplers import chi_square
from tests.pipeline.samplers.synthetic import fake_dataset, official_dataset, shard_set, split_classes


@pytest.fixture(scope="module")
def three() -> ShardSet:
    """Flat, by alphabet, and by graph."""
    return shard_set(
        official_dataset("fungi"), official_dataset("omniglot"), official_dataset("ilsvrc_2012", cap=60)
    )


def tiny(name: str = "birds", count: int = 8) -> Dataset:
    return fake_dataset(name, [9] * count, split_classes(["train"] * count))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_any_number_gives_a_valid_episode_within_the_limits(three: ShardSet, split: str) -> None:
    sampler = MetaDataset(three, split=split, seed=2)
    for number in [*range(200), 10**9, 2**62]:
        plan = sampler[number]
        index, records = three[plan.dataset].index, three[plan.dataset].manifest.classes
        assert 5 <= plan.way <= 50
        assert plan.way <= len(plan.support) <= 500
        rows = np.concatenate([plan.support.rows, plan.query.rows])
        assert len(set(rows.tolist())) == len(rows)
        assert {records[class_id].split for class_id in plan.classes} == {split}
        for side in (plan.support, plan.query):
            assert set(side.labels.tolist()) == set(range(plan.way))
            assert np.array_equal(index["class_id"][side.rows], np.array(plan.classes)[side.labels])
        queries = set(np.bincount(plan.query.labels).tolist())
        assert len(queries) == 1
        assert queries <= set(range(1, 11))


def test_an_alphabet_fills_an_episode(three: ShardSet) -> None:
    sampler = MetaDataset(three, datasets=["omniglot"])
    records = three["omniglot"].manifest.classes
    for number in range(50):
        assert len({records[class_id].superclass for class_id in sampler[number].classes}) == 1
    flat = MetaDataset(three, datasets=["omniglot"], hierarchy="flat")
    assert len({records[class_id].superclass for class_id in flat[0].classes}) > 1


def test_a_hierarchy_can_be_chosen_for_one_dataset_alone(three: ShardSet) -> None:
    published, lite = MetaDataset(three), MetaDataset(three, hierarchy={"ilsvrc_2012": "flat"})
    numbers = range(60)
    for name in three.datasets:
        plans = [(published[n], lite[n]) for n in numbers if published[n].dataset == name]
        assert all(one.dataset == other.dataset for one, other in plans)
        assert all((one == other) == (name != "ilsvrc_2012") for one, other in plans)


def test_sources_are_equally_likely_or_weighted(three: ShardSet) -> None:
    sampler = MetaDataset(three)
    found = Counter(sampler[number].dataset for number in range(900))
    assert chi_square.equal_chances(list(found.values())) > 0.01
    weights = {"fungi": 1, "omniglot": 8, "ilsvrc_2012": 1}
    heavy = MetaDataset(three, weights=weights)
    assert 0.7 < sum(heavy[n].dataset == "omniglot" for n in range(300)) / 300 < 0.9


def test_datasets_without_the_split_stay_out(caplog: pytest.LogCaptureFixture) -> None:
    signs = fake_dataset("signs", [9] * 6, split_classes(["test"] * 6))
    with caplog.at_level(logging.INFO):
        sampler = MetaDataset(shard_set(tiny(), signs))
    assert {sampler[number].dataset for number in range(20)} == {"birds"}
    assert "no images for train in: signs" in caplog.text


def test_constants_are_arguments(three: ShardSet) -> None:
    sampler = MetaDataset(
        three, hierarchy="flat", way=7, shot=(2, 4), query=3, min_examples_in_class=7, seed=4
    )
    shots = set()
    for number in range(40):
        plan = sampler[number]
        assert plan.way == 7
        assert len(plan.query) == 21
        shots |= set(plan.shots.tolist())
        assert len(set(plan.shots.tolist())) == 1
    assert shots == {2, 3, 4}
    small = MetaDataset(three, max_way=8, max_support=20, max_query=2)
    assert all(len(small[n].support) <= 20 and small[n].way <= 8 for n in range(40))
    assert "max_way=8, max_query=2, max_support=20, of fungi 0.333" in repr(small)
    assert "max_support_per_class" not in repr(small)


def test_classes_of_one_image_are_named_unless_left_out() -> None:
    dataset = fake_dataset("birds", [9, 9, 9, 1, 9, 9], split_classes(["train"] * 6))
    with pytest.raises(UsageError, match=r"2 images of each class, and class 'class 3' .* has 1"):
        MetaDataset(shard_set(dataset))
    sampler = MetaDataset(shard_set(dataset), min_examples_in_class=2)
    assert sampler[0].way == 5
    assert 3 not in sampler[0].classes


def test_a_dataset_of_too_few_classes_is_named() -> None:
    with pytest.raises(UsageError, match=r"of 5 classes is asked for and few, train has 4"):
        MetaDataset(shard_set(tiny(), tiny("few", 4)))
    assert MetaDataset(shard_set(tiny(), tiny("few", 4)), datasets=["birds"])[0].way >= 5


def test_contradictions_are_refused_before_the_first_episode() -> None:
    shards = shard_set(tiny())
    with pytest.raises(UsageError, match="max_support is 7 and an episode may have 8 classes"):
        MetaDataset(shards, max_support=7)
    with pytest.raises(UsageError, match="hierarchy= names whales; the datasets are birds"):
        MetaDataset(shards, hierarchy={"whales": "flat"})
    with pytest.raises(UsageError, match=r"hierarchy= is one of auto, .*; got 'tree'"):
        MetaDataset(shards, hierarchy="tree")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="start at 0"):
        MetaDataset(shards, seed=-1)
    with pytest.raises(UsageError, match="start at 0"):
        MetaDataset(shards)[-1]


def test_classes_that_a_graph_never_gives_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    shards = shard_set(official_dataset("ilsvrc_2012_v2", cap=2))
    MetaDataset(shards)
    assert "spans 6 classes (n03814906, n03938244, n04296562, n04399382" in caplog.text
    caplog.clear()
    MetaDataset(shards, hierarchy="flat")
    assert caplog.text == ""


def test_an_episode_never_repeats_an_image_even_when_it_takes_all() -> None:
    # The published reader's worked case: classes of 10, 7 and 20 images, up to 10 of one asked for.
    dataset = fake_dataset("small", [10, 7, 20], split_classes(["train"] * 3))
    sampler = MetaDataset(shard_set(dataset), hierarchy="flat", way=3, shot=4, query=3)
    for number in range(50):
        plan = sampler[number]
        sevens = plan.classes.index(1)
        rows = [side.rows[side.labels == sevens] for side in (plan.support, plan.query)]
        assert sorted(np.concatenate(rows).tolist()) == list(range(10, 17))
