"""A task of VTAB is one episode: its thousand support images and its whole test set."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.samplers import Vtab
from pipeline.samplers.vtab import VTAB_GROUPS
from pipeline.sources.vtab.tasks import VTAB_TASKS
from tests.pipeline.samplers.synthetic import fake_dataset, shard_set

SPLITS = ["train"] * 800 + ["validation"] * 200 + ["test"] * 500 + [""] * 100
LITE = ["train"] * 700 + [""] * 100 + ["test"] * 400 + ["train"] * 300 + ["test"] * 100


def task(name: str, *, lite: bool = True) -> Dataset:
    """Four classes, whose images are of all splits in no order."""
    order = np.random.RandomState(0).permutation(1600)
    words = {"split": [SPLITS[i] for i in order]}
    if lite:
        words["split_lite"] = [LITE[i] for i in order]
    return fake_dataset(name, [400] * 4, words=words)


def test_the_benchmarks_groups_and_order_are_those_of_the_builder() -> None:
    assert [name for names in VTAB_GROUPS.values() for name in names] == list(VTAB_TASKS)
    assert {n: group for group, names in VTAB_GROUPS.items() for n in names} == {
        name: entry.group for name, entry in VTAB_TASKS.items()
    }


def test_tasks_come_in_the_benchmarks_order_and_end() -> None:
    shards = shard_set(*map(task, ("dmlab", "pets", "eurosat", "mine")))
    sampler = Vtab(shards)
    assert sampler.tasks == ("pets", "eurosat", "dmlab")
    plans = [sampler[number] for number in range(len(sampler))]
    assert [plan.dataset for plan in plans] == ["pets", "eurosat", "dmlab"]
    assert [plan.number for plan in plans] == [0, 1, 2]
    for number in (3, -1):
        with pytest.raises(IndexError, match=f"there are 3 tasks, from 0; got {number}"):
            sampler[number]
    assert Vtab(shards, tasks=["mine", "pets"])[0].dataset == "mine"


@pytest.mark.parametrize(
    ("protocol", "column", "support", "query"),
    [("vtab", "split", ["train", "validation"], 500), ("lite", "split_lite", ["train"], 500)],
)
def test_support_is_a_thousand_images_and_query_the_whole_test_set(
    protocol: str, column: str, support: list[str], query: int
) -> None:
    dataset = task("pets")
    plan = Vtab(shard_set(dataset), protocol=protocol)[0]  # type: ignore[arg-type]
    assert (len(plan.support), len(plan.query), plan.way) == (1000, query, 4)
    index = dataset.index
    assert {index.text(column, row) for row in plan.support.rows} == set(support)
    assert {index.text(column, row) for row in plan.query.rows} == {"test"}
    for side in (plan.support, plan.query):
        assert len(set(side.rows.tolist())) == len(side)
        assert np.array_equal(index["class_id"][side.rows], side.labels)
    assert set(plan.support.rows.tolist()).isdisjoint(plan.query.rows.tolist())


def test_a_limited_query_is_a_subset_that_the_seed_decides() -> None:
    shards = shard_set(task("pets"))
    whole, limited = Vtab(shards)[0], Vtab(shards, query_limit=60)[0]
    assert limited == Vtab(shards, query_limit=60)[0]
    assert limited.support.rows.tolist() == whole.support.rows.tolist()
    assert len(limited.query) == 60
    assert set(limited.query.rows.tolist()) < set(whole.query.rows.tolist())
    assert limited != Vtab(shards, query_limit=60, seed=1)[0]
    assert Vtab(shards, query_limit=10_000)[0] == whole


def test_a_class_without_support_images_keeps_its_label() -> None:
    words = {"split": ["train"] * 1000 + ["test"] * 30}
    plan = Vtab(shard_set(fake_dataset("sun397", [500, 500, 30], words=words)))[0]
    assert plan.shots.tolist() == [500, 500, 0]
    assert set(plan.query.labels.tolist()) == {2}


def test_a_support_set_of_another_size_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    words = {"split": ["train"] * 9 + ["test"] * 3}
    Vtab(shard_set(fake_dataset("pets", [6, 6], words=words)))
    assert "pets has 9 support images under the protocol 'vtab'" in caplog.text


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(UsageError, match=r"made has no task of VTAB; it has birds"):
        Vtab(shard_set(task("birds")))
    with pytest.raises(UsageError, match=r"has no dataset 'svhn'; it has birds"):
        Vtab(shard_set(task("birds")), tasks=["svhn"])
    with pytest.raises(UsageError, match=r"0 support and 0 query .* 'lite' .* --protocol both"):
        Vtab(shard_set(task("pets", lite=False)), protocol="lite")
    untested = fake_dataset("pets", [6], words={"split": ["train"] * 6})
    with pytest.raises(UsageError, match=r"pets has 6 support and 0 query images"):
        Vtab(shard_set(untested))


def test_contradictions_are_refused() -> None:
    shards = shard_set(task("pets"))
    with pytest.raises(UsageError, match="protocol is one of vtab, lite; got 'google'"):
        Vtab(shards, protocol="google")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="query_limit starts at 1"):
        Vtab(shards, query_limit=0)
    with pytest.raises(UsageError, match="list of different names"):
        Vtab(shards, tasks=["pets", "pets"])
    with pytest.raises(UsageError, match="start at 0"):
        Vtab(shards, seed=-1)
