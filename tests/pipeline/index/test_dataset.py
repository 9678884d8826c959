"""A dataset opens when it is complete, and says what to do when it is not."""

from __future__ import annotations

import io
import os
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.build.builder import Run, build_shards
from pipeline.errors import IntegrityError, SourceMissing
from pipeline.index import Dataset, DatasetManifest
from pipeline.records import Recipe
from pipeline.shardset import ShardSet
from pipeline.sources.folder import FolderSource


def test_a_class_is_one_slice_and_its_locations_are_those_of_the_images(built: Path) -> None:
    dataset = Dataset.open(built)
    index = dataset.index
    assert [record.name for record in dataset.manifest.classes] == ["cat", "dog", "owl"]
    assert [index.rows_of(c) for c in range(3)] == [slice(0, 30), slice(30, 50), slice(50, 60)]
    for row in range(0, 60, 7):
        for size in (24, 48):
            tar = dataset.tar(size, int(index["shard"][row])).read_bytes()
            offset, length = int(index[f"offset_{size}"][row]), int(index[f"length_{size}"][row])
            data = tar[offset : offset + length]
            assert zlib.crc32(data) == index[f"crc32_{size}"][row]
            load = np.load if size == 24 else Image.open
            assert np.asarray(load(io.BytesIO(data))).shape == (size, size, 3)


def test_columns_are_numpy_and_texts_are_codes(built: Path) -> None:
    index = Dataset.open(built).index
    assert index["class_id"].dtype == np.int32
    assert index["crc32_24"].dtype == np.uint32
    assert index.text("split", 0) == ""
    assert index.is_word("split", "train").sum() == 0
    assert index.is_word("split", "").all()


def test_a_manifest_reads_back_as_it_was(built: Path) -> None:
    manifest = DatasetManifest.read(built / "dataset.json")
    assert manifest.text() == (built / "dataset.json").read_text()
    assert manifest.bytes == sum(path.stat().st_size for path in built.rglob("*.tar"))


def test_a_set_is_one_dataset_or_a_folder_of_them(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "set" / "a")
    assert list(ShardSet.open(built).datasets) == ["pets"]
    assert [dataset.root.name for dataset in ShardSet.open(tmp_path / "set")] == ["a"]


def test_an_unfinished_build_does_not_open(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "copy")
    (copy / "dataset.json").unlink()
    with pytest.raises(SourceMissing, match="has not finished; run the same"):
        ShardSet.open(copy)


def test_an_empty_or_absent_folder_says_how_to_build(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"is not there; build a shard set"):
        ShardSet.open(tmp_path / "nowhere")
    with pytest.raises(SourceMissing, match=r"neither a dataset .* nor a folder of datasets"):
        ShardSet.open(tmp_path)


def test_another_format_number_and_damage_are_named(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "copy")
    whole = (copy / "dataset.json").read_text()
    (copy / "dataset.json").write_text(whole.replace('"format": 1', '"format": 99'))
    with pytest.raises(IntegrityError, match="has format 99 and this version reads 1"):
        Dataset.open(copy)
    (copy / "dataset.json").write_text("{")
    with pytest.raises(IntegrityError, match="damaged"):
        Dataset.open(copy)
    (copy / "dataset.json").write_text(whole.replace('"samples": 60', '"samples": 61'))
    with pytest.raises(IntegrityError, match="its own sha256 does not match"):
        Dataset.open(copy)
    manifest = replace(DatasetManifest.read(built / "dataset.json"), samples=61)
    (copy / "dataset.json").write_text(manifest.text())
    with pytest.raises(IntegrityError, match="says 61 samples and lists 60"):
        Dataset.open(copy)
    (copy / "dataset.json").write_text(whole)
    (copy / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match=r"index.parquet is not the index that"):
        Dataset.open(copy)
    (copy / "index.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"index.parquet is missing"):
        Dataset.open(copy)


def rebuilt(root: Path, splits: dict[str, str], out: Path) -> Path:
    """A shard set of the same pictures in other splits."""
    listing = out.with_suffix(".txt")
    names = [f"{path.parent.name}/{path.name}" for path in sorted(root.rglob("*.jpg"))]
    listing.write_text("".join(f"{name} {splits[name.split('/')[0]]}\n" for name in names))
    source = FolderSource(name="pets", root=root, split_by=str(listing))
    build_shards(source, out, Recipe(sizes=(16,), shard_samples=8), Run(workers=1))
    return out


def test_the_index_of_another_build_does_not_open(photos: Path, tmp_path: Path) -> None:
    one = rebuilt(photos, {"cat": "train", "dog": "test", "one": "test"}, tmp_path / "one")
    two = rebuilt(photos, {"cat": "test", "dog": "train", "one": "train"}, tmp_path / "two")
    assert Dataset.open(one).index["key"].tolist() == Dataset.open(two).index["key"].tolist()
    shutil.copy(two / "index.parquet", one / "index.parquet")
    with pytest.raises(IntegrityError, match=r"index\.parquet is not the index that dataset\.json .* names"):
        Dataset.open(one)


@pytest.mark.parametrize("name", ["dataset.json", "index.parquet"])
def test_a_pipe_or_a_folder_in_a_file_s_place_is_refused_at_once(
    name: str, built: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(built, tmp_path / "copy")
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(IntegrityError, match=rf"{name} is no regular file"):
        Dataset.open(copy)
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(IntegrityError, match=rf"{name} is no regular file"):
        Dataset.open(copy)
