"""The plan is a pure function of the source's contents and the recipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.build.plan import make_plan, read_plan_header, read_shard, write_plan
from pipeline.errors import IntegrityError
from pipeline.records import ClassRecord, Item, Recipe, Rejected, SourceFile, Survey

CLASSES = tuple(ClassRecord(name=name) for name in "abc")


def items(counts: Iterable[int] = (50, 30, 20)) -> list[Item]:
    return [
        Item(f"{class_id}/{number}", class_id, "train", "file", number)
        for class_id, count in enumerate(counts)
        for number in range(count)
    ]


def survey(*, ordered: bool = False, listing: Sequence[Item | Rejected] | None = None) -> Survey:
    return Survey(classes=CLASSES, items=listing or items(), ordered=ordered)


def names(plan: object) -> list[str]:
    return list(plan.items["name"].to_pylist())  # type: ignore[attr-defined]


def test_the_order_does_not_depend_on_the_order_of_listing() -> None:
    forward = make_plan("set", survey(), Recipe())
    backward = make_plan("set", survey(listing=[*reversed(items())]), Recipe())
    assert names(forward) == names(backward)


def test_a_class_is_one_run_and_shuffled_within() -> None:
    plan = make_plan("set", survey(), Recipe())
    ids = plan.items["class_id"].to_pylist()
    assert ids == sorted(ids)
    assert names(plan)[:50] != [f"0/{number}" for number in range(50)]
    assert Counter(names(plan)) == Counter(item.name for item in items())


def test_another_seed_gives_another_order_of_the_same_items() -> None:
    one, two = (make_plan("set", survey(), Recipe(seed=seed)) for seed in (0, 1))
    assert names(one) != names(two)
    assert sorted(names(one)) == sorted(names(two))


def test_videos_keep_their_order_and_shuffled_mixes_classes() -> None:
    assert names(make_plan("set", survey(ordered=True), Recipe())) == [i.name for i in items()]
    mixed = make_plan("set", survey(), Recipe(order="shuffled")).items["class_id"].to_pylist()
    assert sum(one != two for one, two in pairwise(mixed)) > 30


def test_a_limit_keeps_the_first_images_of_each_class() -> None:
    limited = make_plan("set", survey(), Recipe(limit_per_class=25))
    assert Counter(limited.items["class_id"].to_pylist()) == {0: 25, 1: 25, 2: 20}
    assert names(limited)[:25] == names(make_plan("set", survey(), Recipe()))[:25]


def test_the_hash_depends_on_everything_that_decides_a_byte() -> None:
    base = make_plan("set", survey(), Recipe())
    assert base.hash == make_plan("set", survey(), Recipe()).hash
    others = [
        make_plan("other", survey(), Recipe()),
        make_plan("set", survey(), Recipe(seed=1)),
        make_plan("set", survey(), Recipe(resize="crop")),
        make_plan("set", survey(), Recipe(sizes=(84,))),
        make_plan("set", survey(ordered=True), Recipe()),
        make_plan("set", survey(listing=items((50, 30, 19))), Recipe()),
        make_plan("set", survey(listing=[*items()[:-1], items()[-1]._replace(crop=(0, 0, 1, 1))]), Recipe()),
        make_plan(
            "set",
            Survey(classes=CLASSES, items=items(), files=(SourceFile(name="a.tar", bytes=5),)),
            Recipe(),
        ),
    ]
    assert len({base.hash, *(other.hash for other in others)}) == 1 + len(others)


def test_every_row_is_in_one_shard_and_a_written_plan_gives_it_back(tmp_path: Path) -> None:
    listing: list[Item | Rejected] = list(items())
    listing[3] = Item(
        name="odd", class_id=0, split="test", file="f", offset=7, length=9, packing="zip",
        crop=(1, 2, 3, 4), invert=True, group="g", user="u", kind="k", frame=5,
        quality=(1, 0, -1, 0, 0, 0, 1), box=(9, 8, 7, 6), split_lite="train",
    )  # fmt: skip
    plan = make_plan("set", survey(listing=listing), Recipe(shard_samples=16))
    write_plan(plan, tmp_path / "plan.parquet")
    assert [row for shard in range(plan.shards) for row in plan.rows(shard)] == list(range(100))
    read = [read_shard(tmp_path / "plan.parquet", shard) for shard in range(plan.shards)]
    assert [shard.first_key for shard in read] == list(plan.starts)
    assert sorted(item for shard in read for item in shard.items) == sorted(
        entry for entry in listing if isinstance(entry, Item)
    )
    assert read[0].class_names == ("a", "b", "c")
    assert read_plan_header(tmp_path / "plan.parquet").hash == plan.hash


def test_writing_a_plan_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_plan(make_plan("set", survey(), Recipe()), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_video_is_not_cut_where_that_costs_little_balance() -> None:
    frames: list[Item | Rejected] = [
        Item(f"{video}/{frame}", 0, group=f"video {video}", frame=frame)
        for video in range(8)
        for frame in range(15)
    ]
    plan = make_plan("set", survey(ordered=True, listing=frames), Recipe(shard_samples=16))
    assert set(plan.starts) <= {15 * video for video in range(8)} | {48, 64, 80, 96, 112}
    assert plan.starts[1] == 15


def test_rejected_items_are_kept_and_nothing_but_rejected_is_an_error() -> None:
    plan = make_plan("set", survey(listing=[Rejected("x", "bad"), *items()]), Recipe())
    assert plan.rejected == (Rejected("x", "bad"),)
    with pytest.raises(IntegrityError, match="no picture that can be built; 1 were rejected, the first: x"):
        make_plan("set", survey(listing=[Rejected("x", "bad")]), Recipe())
