from __future__ import annotations

import pickle

import pytest

from pipeline.sources.vtab.tasks import VTAB_FAMILY, VTAB_TASKS, RecordSlice, VtabTask, parse_slices

QUERY = {  # VTAB's test sets and LITE's, as the two codes' own tests and readers give them
    "caltech101": (6084, 6084),
    "cifar100": (10_000, 10_000),
    "flowers102": (6149, 6149),
    "pets": (3669, 3669),
    "sun397": (21_750, 0),  # LITE's: 20 % of all, drawn
    "svhn": (26_032, 26_032),
    "eurosat": (5400, 26_000),
    "resisc45": (6300, 30_500),
    "camelyon": (32_768, 32_768),
    "retinopathy": (42_670, 42_670),
    "clevr_count": (15_000, 15_000),
    "clevr_distance": (15_000, 15_000),
    "dmlab": (22_735, 22_735),
    "dsprites_orientation": (73_728, 736_280),
    "dsprites_location": (73_728, 736_280),
    "smallnorb_azimuth": (12_150, 24_300),
    "smallnorb_elevation": (12_150, 24_300),
    "kitti_distance": (711, 711),
}
CLASSES = [102, 100, 102, 37, 397, 10, 10, 45, 2, 5, 8, 6, 6, 16, 16, 18, 9, 4]


def positions(task: VtabTask, parts: tuple[RecordSlice, ...]) -> set[tuple[str, int]]:
    return {(split, i) for split, start, stop in parts for i in range(task.sizes[split])[start:stop]}


def test_the_family_is_eighteen_tasks_in_three_groups() -> None:
    assert set(VTAB_FAMILY) == set(QUERY)
    groups = [task.group for task in VTAB_TASKS.values()]
    assert groups == ["natural"] * 6 + ["specialised"] * 4 + ["structured"] * 8
    assert len({task.builder for task in VTAB_TASKS.values()}) == 15


def test_the_classes_are_as_many_as_published() -> None:
    assert [VTAB_TASKS[name].classes for name in QUERY] == CLASSES
    assert all(len(task.bins) in (0, task.classes) for task in VTAB_TASKS.values())


@pytest.mark.parametrize("name", QUERY)
def test_the_slices_have_the_published_sizes(name: str) -> None:
    task = VTAB_TASKS[name]
    train, validation = positions(task, task.train), positions(task, task.validation)
    test = positions(task, task.test)
    assert (len(train), len(validation), len(test)) == (800, 200, QUERY[name][0])
    assert not train & validation
    assert not (train | validation) & test
    lite_train, lite_test = positions(task, task.lite_train), positions(task, task.lite_test)
    assert len(lite_train) == (0 if name == "sun397" else 1000)
    assert len(lite_test) == QUERY[name][1]
    assert not lite_train & lite_test


def test_the_validation_part_begins_where_the_training_part_ends() -> None:
    cut = {name: VTAB_TASKS[name].validation[0].start / VTAB_TASKS[name].sizes["train"] for name in QUERY}
    for name in ("caltech101", "cifar100", "clevr_count", "svhn"):
        assert cut[name] == pytest.approx(0.9, abs=1e-4)
    assert cut["pets"] == cut["dsprites_location"] == 0.8
    assert cut["eurosat"] == cut["resisc45"] == 0.6


def test_a_task_survives_the_way_to_a_worker() -> None:
    for task in VTAB_TASKS.values():
        assert pickle.loads(pickle.dumps(task)) == task


def test_what_is_no_slice_is_refused() -> None:
    assert parse_slices("train[:800] test") == (RecordSlice("train", 0, 800), RecordSlice("test"))
    with pytest.raises(ValueError, match="not a slice"):
        parse_slices("train[:80%]")


def test_each_builder_has_files_with_sizes_and_addresses() -> None:
    for task in VTAB_TASKS.values():
        assert task.raw
        assert all(file.bytes > 0 and file.url.startswith("http") for file in task.raw)
    assert {task.name for task in VTAB_TASKS.values() if any(f.manual for f in task.raw)} == {
        "resisc45",
        "retinopathy",
    }
