"""The tasks of each protocol, its averages, and its notes and errors where something is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from learners.evaluate.protocols import MD_TEST, PROTOCOLS
from learners.evaluate.task_set import TaskSet
from pipeline.errors import UsageError
from pipeline.samplers import Fixed, MetaDataset, Orbit, Vtab
from pipeline.samplers.vtab import VTAB_GROUPS
from pipeline.shardset import ShardSet
from tests.pipeline.samplers.orbit_sets import OrbitVideo, absence_flags, benchmark_videos, orbit_set
from tests.pipeline.samplers.synthetic import fake_dataset, official_dataset, shard_set, split_classes


def task_set(shards: ShardSet, protocol: str, **options: Any) -> TaskSet:
    return PROTOCOLS[protocol](**options).task_set(shards)


def counts(tasks: TaskSet) -> Mapping[str, int]:
    return {f"{own.dataset} {own.group}".strip(): own.tasks for own in tasks.datasets}


@pytest.fixture(scope="module")
def some_md() -> ShardSet:
    return shard_set(*(official_dataset(name, cap=30) for name in ("omniglot", "dtd", "traffic_sign", "ilsvrc_2012")))  # fmt: skip


def test_md_is_600_tasks_of_each_test_dataset_and_notes_which_are_missing(some_md: ShardSet) -> None:
    tasks = task_set(some_md, "md")
    assert counts(tasks) == {"dtd": 600, "omniglot": 600, "traffic_sign": 600}
    assert tasks.averages == {"all": MD_TEST}
    assert tasks.notes == (
        "5 of 8 datasets are not in the shards: aircraft, cu_birds, fungi, mscoco, quickdraw",
    )


def test_mds_tasks_are_those_of_the_sampler_with_the_papers_numbers(some_md: ShardSet) -> None:
    (tasks,) = task_set(some_md, "md", datasets=("dtd",), seed=3).datasets
    own = MetaDataset(
        some_md, split="test", datasets=["dtd"], seed=3, max_way=50, max_support=500, max_query=10
    )
    assert [tasks.sampler[n] for n in range(5)] == [own[n] for n in range(5)]


def test_the_tasks_of_a_dataset_do_not_depend_on_which_others_are_there(some_md: ShardSet) -> None:
    alone = shard_set(official_dataset("omniglot", cap=30))
    for protocol in ("md", "fixed"):
        both = [task_set(shards, protocol).datasets for shards in (alone, some_md)]
        (one,), (other,) = ([d for d in datasets if d.dataset == "omniglot"] for datasets in both)
        assert one.sampler[5] == other.sampler[5]


def vtab_task(name: str, unseen: int = 0) -> Any:
    """Three classes, whose last has so many test images and none to learn from."""
    splits = ["train"] * 600 + ["test"] * 30 + ["train"] * 400 + ["test"] * (20 + unseen)
    return fake_dataset(name, [630, 420, unseen], words={"split": splits, "split_lite": splits})


def test_vtab_is_one_task_of_each_dataset_averaged_by_group() -> None:
    shards = shard_set(*map(vtab_task, ("pets", "svhn", "eurosat", "dmlab")))
    tasks = task_set(shards, "vtab", splits="lite")
    assert counts(tasks) == {"pets natural": 1, "svhn natural": 1, "eurosat specialised": 1, "dmlab structured": 1}  # fmt: skip
    assert {name: len(names) for name, names in tasks.averages.items()} == {
        "natural": 6, "specialised": 4, "structured": 8, "all": 18,
    }  # fmt: skip
    assert tasks.averages["natural"] == VTAB_GROUPS["natural"]
    assert "14 of 18 datasets are not in the shards: caltech101, cifar100" in tasks.notes[0]


def test_vtab_notes_how_many_queries_are_of_classes_without_a_support_image() -> None:
    tasks = task_set(shard_set(vtab_task("pets"), vtab_task("svhn", unseen=7)), "vtab", datasets=("pets", "svhn"))  # fmt: skip
    assert tasks.notes == ("svhn: 1 of 3 classes have no support image; their 7 query images count as wrong",)
    assert tasks.averages == {"natural": ("pets", "svhn"), "all": ("pets", "svhn")}


def test_a_limited_vtab_task_has_the_same_queries_whatever_else_is_there() -> None:
    shards = [shard_set(*map(vtab_task, names)) for names in (("svhn",), ("pets", "svhn"))]
    plans = [task_set(s, "vtab", query_limit=10).datasets[-1].sampler[0] for s in shards]
    assert plans[0] == plans[1]
    assert len(plans[0].query) == 10
    assert "at most 10 query images of each task" in task_set(shards[0], "vtab", query_limit=10).notes


@pytest.fixture(scope="module")
def orbit() -> ShardSet:
    return orbit_set(benchmark_videos("test"))


def test_orbit_is_85_tasks_in_both_modes_as_in_the_paper(orbit: ShardSet) -> None:
    tasks = task_set(orbit, "orbit")
    assert counts(tasks) == {"orbit cle-ve": 85, "orbit clu-ve": 85}
    assert [own.clip for own in tasks.datasets] == [8, 8]
    assert len({key for own in tasks.datasets for key in own.keys}) == 170
    assert PROTOCOLS["orbit"]().described()["mode"] == ["cle-ve", "clu-ve"]


def test_the_later_orbit_is_50_tasks_of_each_user_in_clutter() -> None:
    films = benchmark_videos("test")
    tasks = task_set(orbit_set(films, flags=absence_flags(films, {})), "orbit", orbit="2022")
    assert counts(tasks) == {"orbit clu-ve": 17 * 50}
    assert tasks.notes == ()


def test_orbit_notes_what_its_filters_left_out() -> None:
    films = [OrbitVideo("P177", t, k, n, 60) for t in ("a", "b") for k in ("clean", "clutter") for n in (0, 1)]  # fmt: skip
    flags = absence_flags(films, {"P177--a--clutter--000": 20})
    tasks = task_set(orbit_set(films, flags=flags), "orbit", orbit="2022")
    assert tasks.notes == ("clu-ve: 1 video(s) left out",)


def test_no_video_left_after_the_filters_is_an_error() -> None:
    films = [OrbitVideo("P177", "a", kind, 0, 60) for kind in ("clean", "clutter")]
    flags = absence_flags(films, {"P177--a--clutter--000": 20})
    with pytest.raises(UsageError, match=r"no task can be drawn of.*40 of 60 frames meet"):
        task_set(orbit_set(films, flags=flags), "orbit", orbit="2022")


def test_fixed_is_of_all_datasets_with_the_split_within_superclasses_or_across() -> None:
    above = ["greek"] * 6 + ["latin"] * 6
    letters = fake_dataset("letters", [9] * 12, split_classes(["test"] * 12, above))
    shards = shard_set(letters, fake_dataset("cats", [9] * 12, split_classes(["test"] * 12)), fake_dataset("dogs", [9] * 5))  # fmt: skip
    across = task_set(shards, "fixed", tasks=30, way=3, query=4)
    assert counts(across) == {"cats": 30, "letters": 30}
    assert across.averages == {"all": ("cats", "letters")}
    within = task_set(shards, "fixed", way=3, query=4, within=True, datasets=("letters",))
    assert within.averages == {}
    for number in range(20):
        assert len({above[c] for c in within.datasets[0].sampler[number].classes}) == 1
    plan = across.datasets[1].sampler[0]
    assert (plan.way, plan.shots.tolist(), len(plan.query)) == (3, [1, 1, 1], 12)
    assert np.bincount(plan.query.labels).tolist() == [4, 4, 4]


def test_superclasses_with_too_few_classes_are_a_note() -> None:
    above = ["greek"] * 6 + ["latin"] * 2
    letters = shard_set(fake_dataset("letters", [11] * 8, split_classes(["test"] * 8, above)))
    assert task_set(letters, "fixed", within=True).notes == (
        "letters, test: 1 of 2 superclasses have fewer than 5 classes and are left out: latin",
    )


def test_each_protocol_uses_its_own_sampler(some_md: ShardSet, orbit: ShardSet) -> None:
    made_of = {
        "md": some_md, "fixed": some_md, "orbit": orbit, "vtab": shard_set(vtab_task("pets")),
    }  # fmt: skip
    kinds = {name: type(task_set(shards, name).datasets[0].sampler) for name, shards in made_of.items()}
    assert kinds == {"md": MetaDataset, "fixed": Fixed, "orbit": Orbit, "vtab": Vtab}


@pytest.mark.parametrize(
    ("protocol", "options", "message"),
    [
        ("md", {}, r"made has no test dataset of Meta-Dataset; it has cats \(test\), dogs; name others"),
        ("md", {"datasets": ("birds", "cats")}, r"no dataset birds; it has cats \(test\), dogs"),
        ("md", {"datasets": ("dogs",)}, r"dogs has nothing in the split 'test'"),
        ("md", {"datasets": ("cats", "cats")}, r"takes different names"),
        ("md", {"datasets": ("cats",), "tasks": 0}, r"--tasks starts at 1, got 0"),
        ("vtab", {}, r"has no task of VTAB"),
        ("vtab", {"datasets": ("cats",)}, r"cats is no task of VTAB; it has caltech101"),
        ("orbit", {}, r"has no dataset orbit; it has cats \(test\), dogs"),
        ("orbit", {"datasets": ("cats",)}, r"cats has no users in split test"),
        ("orbit", {"datasets": ("cats", "dogs")}, r"is about one dataset, not 2"),
        ("fixed", {"split": "validation"}, r"no dataset with the split 'validation'"),
        ("fixed", {"within": True}, r"no superclasses to draw within"),
        ("fixed", {"way": 30}, r"an episode of 30 classes is asked for and cats, test has 12"),
        ("fixed", {"shot": 5}, r"needs 15 images of each class"),
    ],
)
def test_what_the_shards_do_not_have_is_an_error(
    protocol: str, options: dict[str, Any], message: str
) -> None:
    shards = shard_set(
        fake_dataset("cats", [11] * 12, split_classes(["test"] * 12)), fake_dataset("dogs", [9] * 5)
    )
    with pytest.raises(UsageError, match=message):
        task_set(shards, protocol, **options)
