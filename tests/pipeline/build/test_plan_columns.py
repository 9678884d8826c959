"""A plan holds every name that a file system has, and says what it cannot hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.build.plan import make_plan, read_shard, write_plan
from pipeline.build.plan_columns import PLAN_SCHEMA, item_columns, items_from, path_of, stored_path
from pipeline.errors import IntegrityError
from pipeline.records import ClassRecord, Item, Recipe, Rejected, SourceFile, Survey

LATIN = os.fsdecode(b"caf\xe9")  # as Python names a file whose name is latin-1


@pytest.mark.parametrize("file", ["", "a/b.png", "ü.png", f"{LATIN}/1.png", "\\xe9", "00ff"])
def test_a_path_comes_back_from_a_plan_byte_by_byte(file: str) -> None:
    stored_path(file).encode()
    assert path_of(stored_path(file)) == file
    table = pa.Table.from_batches([item_columns([Item("a", 0, file=file)])], PLAN_SCHEMA)
    assert next(items_from(table)).file == file


def test_names_that_are_no_utf_8_are_planned_under_escaped_ones(tmp_path: Path) -> None:
    listing: list[Item | Rejected] = [
        Item(f"{LATIN}/1.png", 0, file=f"{LATIN}/1.png", group=LATIN, user="\ud800", kind=LATIN),
        Rejected(f"{LATIN}/2.png", f"a link to {LATIN}"),
    ]
    classes = (ClassRecord(name=LATIN, superclass=LATIN, words=LATIN),)
    files = (SourceFile(name=f"{LATIN}.tar", bytes=1),)
    plan = make_plan("set", Survey(classes=classes, items=listing, files=files), Recipe(order="shuffled"))
    assert plan.rejected == (Rejected("caf\\xe9/2.png", "a link to caf\\xe9"),)
    assert plan.classes == (ClassRecord(name="caf\\xe9", superclass="caf\\xe9", words="caf\\xe9"),)
    assert plan.files == (SourceFile(name="caf\\xe9.tar", bytes=1),)
    write_plan(plan, tmp_path / "plan.parquet")
    (item,) = read_shard(tmp_path / "plan.parquet", 0).items
    assert (item.name, item.file) == ("caf\\xe9/1.png", f"{LATIN}/1.png")
    assert (item.group, item.user, item.kind) == ("caf\\xe9", "\\ud800", "caf\\xe9")


@pytest.mark.parametrize(
    "values", [{"crop": (0, 0, 2**40, 1)}, {"box": (0, 0, 2**40, 1)}, {"offset": 2**63}, {"frame": 2**31}]
)
def test_a_number_out_of_range_is_named_with_its_column(values: dict[str, Any]) -> None:
    item = Item("a", 0)._replace(**values)
    with pytest.raises(IntegrityError, match=f"'{next(iter(values))}' is out of range"):
        make_plan("set", Survey(classes=(ClassRecord(name="a"),), items=[item]), Recipe())


def test_the_hash_does_not_know_the_size_of_a_file_that_older_plans_did_not_have() -> None:
    def plan_hash(item: Item) -> str:
        return make_plan("set", Survey(classes=(ClassRecord(name="a"),), items=[item]), Recipe()).hash

    old, new = Item("a", 0, file="a"), Item("a", 0, file="a", length=7, packing="whole")
    assert plan_hash(old) == plan_hash(new) == plan_hash(new._replace(length=8))
