"""Saved plans are replayed, or refused with the line that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.episodes import EpisodePlan, Side
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.samplers import Fixed, Replay, save_plans
from pipeline.shardset import ShardSet
from tests.pipeline.samplers.synthetic import fake_dataset, shard_set, split_classes


@pytest.fixture
def plans(built: Path) -> list[EpisodePlan]:
    sampler = Fixed(ShardSet.open(built), split="", way=2, shot=2, query=3, seed=8)
    return [sampler[number] for number in (5, 3, 4)]


@pytest.fixture
def saved(built: Path, plans: list[EpisodePlan], tmp_path: Path) -> Path:
    path = tmp_path / "plans.jsonl"
    assert save_plans(path, plans, ShardSet.open(built)) == 3
    return path


def test_plans_come_back_as_they_were_and_in_their_order(
    built: Path, plans: list[EpisodePlan], saved: Path
) -> None:
    sampler = Replay(saved, ShardSet.open(built), seed=8)
    assert [sampler[number] for number in range(len(sampler))] == plans
    assert [plan.number for plan in plans] == [5, 3, 4]
    assert sampler.seed == 8
    for number in (3, -1):
        with pytest.raises(IndexError, match=f"has 3 plans, from 0; got {number}"):
            sampler[number]


def test_clips_survive(built: Path, plans: list[EpisodePlan], tmp_path: Path) -> None:
    shards, plan = ShardSet.open(built), replace(plans[0], clip=2, query_clips="sliding")
    save_plans(tmp_path / "p", iter([plan]), shards)
    assert Replay(tmp_path / "p", shards)[0] == plan


def test_the_file_is_readable_by_others(built: Path, plans: list[EpisodePlan], saved: Path) -> None:
    first, *lines, last = map(json.loads, saved.read_text().splitlines())
    manifest = ShardSet.open(built)["pets"].manifest
    assert first == {
        "format": 1,
        "datasets": {"pets": {"plan": manifest.plan_hash, "samples": manifest.samples}},
    }
    assert [line["support"]["rows"] for line in lines] == [p.support.rows.tolist() for p in plans]
    assert last == {"plans": 3}


def without_line(number: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda lines: lines[:number] + lines[number + 1 :]


def digit_flipped(lines: list[bytes]) -> list[bytes]:
    """One digit of one row of the second plan becomes another."""
    text = lines[2].decode()
    at = next(i for i in range(text.index("rows"), len(text)) if text[i].isdigit())
    digit = str((int(text[at]) + 1) % 10)
    return [*lines[:2], (text[:at] + digit + text[at + 1 :]).encode(), *lines[3:]]


def with_values(**changes: object) -> Callable[[list[bytes]], list[bytes]]:
    """The first plan with other values."""

    def change(lines: list[bytes]) -> list[bytes]:
        line = json.dumps({**json.loads(lines[1]), **changes}).encode()
        return [lines[0], line, *lines[2:]]

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_line(-1), "cut short or put together"),
        (without_line(2), "cut short or put together"),
        (lambda lines: lines[:1], "cut short or put together"),
        (lambda _: [], "is empty"),
        (digit_flipped, "line 3, is damaged .its hash does not match"),
        (lambda lines: [lines[0], lines[1][:-9], *lines[2:]], "line 2, is damaged"),
        (lambda lines: [lines[0], b"\xff\x00", *lines[2:]], "line 2, is damaged"),
        (lambda lines: [lines[0], b"[1]", *lines[2:]], "line 2, is damaged .it is a list"),
        (lambda lines: [lines[0], b"[" * 100_000, *lines[2:]], "line 2, is damaged"),
        (with_values(number="5"), "line 2, is damaged .the plan: number: Expected `int`, got `str`"),
        (with_values(support={"rows": [0.5], "labels": [0]}), "rows.* Expected `int`, got `float`"),
        (with_values(query={"rows": [2**64], "labels": [0]}), "line 2, is damaged .*query.rows"),
        (with_values(query={"rows": [1, 2], "labels": [0]}), "line 2, is damaged .*one label per row"),
        (with_values(classes=[[0], 1]), "line 2, is damaged .*classes.* Expected `int`, got `array`"),
        (with_values(clip=0), "line 2, is damaged .the plan: clip: Expected `int` >= 1"),
        (with_values(novelty=1), "line 2, is damaged .the plan.* has 'novelty'"),
        (lambda lines: [b'{"format":2}', *lines[1:]], "no file of plans of format 1"),
        (lambda lines: [b'{"format":1,"datasets":[]}', *lines[1:]], "line 1, is damaged: datasets"),
        (lambda lines: [b'{"format":1}', *lines[1:]], "line 1, is damaged.*`datasets`"),
        (lambda lines: [b'{"format":1,"datasets":{}}', *lines[1:]], "does not name the build"),
    ],
)
def test_damage_is_refused_with_its_place(
    built: Path, saved: Path, damage: Callable[[list[bytes]], list[bytes]], message: str
) -> None:
    saved.write_bytes(b"".join(line + b"\n" for line in damage(saved.read_bytes().splitlines())))
    with pytest.raises(IntegrityError, match=message):
        Replay(saved, ShardSet.open(built))


def test_every_flipped_byte_is_refused(built: Path, saved: Path) -> None:
    shards, whole = ShardSet.open(built), saved.read_bytes()
    for at in range(0, len(whole), 7):
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(IntegrityError):
            Replay(saved, shards)


def shards_of(counts: list[int], **changes: Any) -> ShardSet:
    dataset = fake_dataset("birds", counts, split_classes(["train"] * len(counts)))
    return shard_set(replace(dataset, manifest=replace(dataset.manifest, **changes)))


def test_another_build_of_a_dataset_is_refused(tmp_path: Path) -> None:
    shards, path = shards_of([9, 9]), tmp_path / "plans.jsonl"
    save_plans(path, [Fixed(shards, split="train", way=2, shot=2, query=2)[0]], shards)
    with pytest.raises(IntegrityError, match=r"another build of birds.*save the plans again"):
        Replay(path, shards_of([9, 9], plan_hash="another"))
    with pytest.raises(IntegrityError, match=r'"samples": 18\} there, .*"samples": 17\} in made'):
        Replay(path, shards_of([9, 8]))
    more = shard_set(*shards, fake_dataset("fish", [5]))
    assert len(Replay(path, more)) == 1
    with pytest.raises(IntegrityError, match="is of the dataset 'birds', and made has fish"):
        Replay(path, shard_set(fake_dataset("fish", [5])))


def side_of(*rows: int, labels: tuple[int, ...] | None = None) -> Side:
    return Side(np.array(rows), np.array(labels or [0] * len(rows)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"support": side_of(0, 18)},
            r"plan 1 \(episode 1\) does not fit: its support rows are 0 to 18, and birds has rows 0 to 17",
        ),
        ({"query": side_of(-1)}, "its query rows are -1 to -1, and birds has rows 0 to 17"),
        ({"query": side_of(0, labels=(1,))}, "its query labels are 1 to 1, and the episode has 1 classes"),
        ({"classes": (2,)}, "has classes beyond the 2 of birds"),
        ({"dataset": "fish"}, "is of the dataset 'fish', and made has birds"),
    ],
)
def test_a_plan_that_cannot_be_loaded_is_not_saved(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    good = EpisodePlan(number=1, dataset="birds", classes=(0,), support=side_of(3), query=side_of())
    with pytest.raises(UsageError, match=message):
        save_plans(tmp_path / "p", [good, replace(good, **changes)], shards_of([9, 9]))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_source_of_plans_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[EpisodePlan]:
        raise RuntimeError("half-way")
        yield

    with pytest.raises(RuntimeError, match="half-way"):
        save_plans(tmp_path / "p", failing(), shards_of([9]))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_not_there_says_what_writes_it(built: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match="save_plans writes such files"):
        Replay(tmp_path / "none", ShardSet.open(built))
