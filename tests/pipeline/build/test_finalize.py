"""Commit records become the index and the manifest, the same ones every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from pipeline.build.builder import build_shards
from pipeline.build.finalize import derive_files, finalize
from pipeline.build.jobs import read_commit
from pipeline.build.plan import make_plan
from pipeline.constants import QUALITY_ISSUES
from pipeline.errors import IntegrityError
from pipeline.index import Dataset
from pipeline.layout import DatasetLayout
from pipeline.records import ClassRecord, Encoding, Item, Pixels, Recipe, Rejected, Survey
from pipeline.sources.base import Source
from tests.images import jpeg_bytes, tree_hashes

RECIPE = Recipe(sizes=(16, 54), encodings=(Encoding.parse("raw"),) * 2, shard_samples=4)


class FilmedSource(Source):
    """Twelve frames of two objects; half of them annotated, one of them bad."""

    def survey(self) -> Survey:
        items = [
            Item(
                name=f"{class_id}/{frame}",
                class_id=class_id,
                split="train" if class_id else "test",
                group=f"video {class_id}",
                user="P1",
                kind="clutter" if frame % 2 else "clean",
                frame=frame,
                quality=(0, 1, 0, 0, 1, 0, -1) if frame % 2 == 0 else (),
                box=(540, 270, 100, 200) if frame % 2 else None,
            )
            for class_id in range(2)
            for frame in range(1, 7)
        ]
        classes = tuple(ClassRecord(name=name, superclass="P1") for name in ("P1/cup", "P1/key"))
        hierarchy = {"train": {"n1": ("n2", "n3")}}
        return Survey(classes=classes, items=items, ordered=True, hierarchy=hierarchy)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        for item in items:
            yield b"bad" if item.name == "1/3" else jpeg_bytes(item.frame)


@pytest.fixture
def filmed(tmp_path: Path) -> Path:
    build_shards(FilmedSource(name="filmed", root=tmp_path), tmp_path / "out", RECIPE)
    return tmp_path / "out"


def test_the_index_keeps_videos_flags_and_boxes_at_each_size(filmed: Path) -> None:
    index = Dataset.open(filmed).index
    assert index["frame"].tolist() == [1, 2, 3, 4, 5, 6, 1, 2, 4, 5, 6]
    assert index.words["user"] == ("P1",)
    assert index.text("group", 7) == "video 1"
    assert index["framing_issue"].tolist() == [-1, 1, -1, 1, -1, 1, -1, 1, 1, -1, 1]
    assert [index[name][1] for name in QUALITY_ISSUES] == [0, 1, 0, 0, 1, 0, -1]
    assert index["box_54"][0].tolist() == [27, 13, 5, 10]
    assert index["box_16"][1].tolist() == [-1, -1, -1, -1]
    assert index["box_16"].dtype == np.int16


def test_the_manifest_keeps_splits_hierarchy_and_what_was_left_out(filmed: Path) -> None:
    manifest = Dataset.open(filmed).manifest
    assert list(manifest.splits.items()) == [("train", 5), ("test", 6)]
    assert manifest.hierarchy == {"train": {"n1": ("n2", "n3")}}
    assert [entry.name for entry in manifest.quarantined] == ["1/3"]


def test_finalizing_again_changes_nothing(filmed: Path) -> None:
    before = tree_hashes(filmed)
    source = FilmedSource(name="filmed", root=filmed.parent)
    finalize(make_plan("filmed", source.survey(), RECIPE), DatasetLayout(filmed))
    assert tree_hashes(filmed) == before


def test_records_of_another_plan_are_refused(filmed: Path) -> None:
    source = FilmedSource(name="filmed", root=filmed.parent)
    plan = make_plan("other", source.survey(), RECIPE)
    commits = [read_commit(DatasetLayout(filmed).commit(shard)) for shard in range(plan.shards)]
    with pytest.raises(IntegrityError, match="belong to another plan"):
        derive_files(plan, commits)
