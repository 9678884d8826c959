"""A shard set is complete datasets by name."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.index import DatasetManifest
from pipeline.shardset import ShardSet
from pipeline.store.local import LocalStore
from pipeline.store.mapped import MappedStore


def copy_renamed(built: Path, folder: Path, name: str) -> Path:
    """A copy whose dataset has another name."""
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns(".build"))
    manifest = replace(DatasetManifest.read(folder / "dataset.json"), name=name)
    (folder / "dataset.json").write_text(manifest.text())
    return folder


def test_datasets_are_found_by_name_and_sorted(built: Path, tmp_path: Path) -> None:
    for folder, name in (("1", "zebras"), ("2", "ants")):
        copy_renamed(built, tmp_path / folder, name)
    shards = ShardSet.open(tmp_path)
    assert list(shards.datasets) == ["ants", "zebras"]
    assert len(shards) == 2
    assert [dataset.manifest.name for dataset in shards] == ["ants", "zebras"]
    assert shards["zebras"].root == tmp_path / "1"
    with pytest.raises(UsageError, match=r"has no dataset 'cows'; it has ants, zebras"):
        shards["cows"]


def test_a_set_is_described_in_one_line(built: Path) -> None:
    assert str(ShardSet.open(built)) == f"<ShardSet {built}: pets>"


def test_several_paths_are_one_set(built: Path, tmp_path: Path) -> None:
    other = copy_renamed(built, tmp_path / "other", "ants")
    assert list(ShardSet.open([built, str(other)]).datasets) == ["ants", "pets"]


def test_two_datasets_of_one_name_are_refused(built: Path, tmp_path: Path) -> None:
    for folder in "ab":
        shutil.copytree(built, tmp_path / folder)
    with pytest.raises(UsageError, match=r"/a and .*/b both are a dataset pets; keep one"):
        ShardSet.open(tmp_path)


def test_a_local_set_has_a_local_store(built: Path) -> None:
    store = ShardSet.open(built).open_store()
    assert isinstance(store, LocalStore)
    store.close()


def test_a_local_set_can_be_mapped(built: Path) -> None:
    store = ShardSet.open(built).open_store(mapped=True)
    assert isinstance(store, MappedStore)
    store.close()


def test_another_format_does_not_open(built: Path, tmp_path: Path) -> None:
    copy = copy_renamed(built, tmp_path / "copy", "new")
    values = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps(values | {"format": 99}))
    with pytest.raises(Exception, match="has format 99 and this version reads 1"):
        ShardSet.open(tmp_path)


def test_a_folder_of_shards_without_a_manifest_is_not_left_out(built: Path, tmp_path: Path) -> None:
    copy_renamed(built, tmp_path / "whole", "ants")
    half = copy_renamed(built, tmp_path / "half", "zebras")
    (half / "dataset.json").unlink()
    with pytest.raises(SourceMissing, match=r"half holds shards and no dataset\.json"):
        ShardSet.open(tmp_path)
    (half / "24").rename(tmp_path / "pictures")
    shutil.rmtree(half)
    assert list(ShardSet.open(tmp_path).datasets) == ["ants"]


def test_a_tar_that_is_gone_or_of_another_length_is_named_before_anything_is_read(
    built: Path, tmp_path: Path
) -> None:
    shards = ShardSet.open(copy_renamed(built, tmp_path / "copy", "ants"))
    shards.check_tars(24)
    tar = tmp_path / "copy" / "24" / "shard-000001.tar"
    with tar.open("ab") as file:
        file.write(b"x")
    with pytest.raises(IntegrityError, match=r"24/shard-000001\.tar has 81,921 bytes and dataset\.json"):
        shards.check_tars(24)
    tar.unlink()
    with pytest.raises(SourceMissing, match=r"24/shard-000001\.tar is needed and not there"):
        shards.check_tars(24)
    shards.check_tars(48)
