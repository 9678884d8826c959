"""A dataset opens when it is complete, and says what to do when it is not."""

from __future__ import annotations

import io
import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.index import Dataset, DatasetManifest, _checksum
from pipeline.shardset import ShardSet


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
    with pytest.raises(IntegrityError, match=r"60 rows and dataset\.json says 61"):
        Dataset.open(copy)
    (copy / "dataset.json").write_text(whole)
    (copy / "index.parquet").write_bytes(b"PAR1")
    with pytest.raises(IntegrityError, match=r"index.parquet is damaged"):
        Dataset.open(copy)
    (copy / "index.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"index.parquet is missing"):
        Dataset.open(copy)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"samples": "60"}, "samples: Expected `int`, got `str`"),
        ({"samples": 60.5}, "samples: Expected `int`, got `float`"),
        ({"splits": [60]}, "splits: Expected `object`, got `array`"),
        ({"plan": None}, "plan: the whole: Expected `str`, got `null`"),
        ({"classes": {"cat": 0}}, "classes: Expected `array`, got `object`"),
        ({"classes": ["cat"]}, r"classes\[0\]: Expected `object`, got `str`"),
        ({"classes": [{"split": "train"}]}, r"classes\[0\]: Object missing required field `name`"),
        ({"classes": [{"name": "cat", "split": "mine"}]}, r"classes\[0\]\.split: Invalid enum value"),
        ({"hierarchy": {"train": {"n1": "n2"}}}, "hierarchy.*: Expected `array`, got `str`"),
        ({"shards": {"small": []}}, "key in shards: Expected `int`, got `str`"),
        ({"shards": {"24": [{"name": "a.tar"}]}}, "shards.*: Object missing required field `samples`"),
        ({"sources": 0}, "sources: Expected `array`, got `int`"),
        ({"quarantined": [["a", "b"]]}, r"quarantined: \[0\]: Expected `object`, got `array`"),
        ({"versions": [{"pillow": 12}]}, r"versions\[0\].*: Expected `str`, got `int`"),
        ({"recipe": "squash"}, "recipe: the whole: Expected `object`, got `str`"),
        ({"recipe": {"encodings": {}}}, "recipe, sizes: the whole: Expected `array`, got `null`"),
        ({"recipe": {"sizes": [], "encodings": {}}}, "recipe: sizes are different positive numbers"),
        ({"recipe": {"sizes": [24], "encodings": {"24": "gif"}}}, "recipe, encodings: an encoding is"),
        ({"weather": "fine"}, "'weather', which this version does not know"),
    ],
)  # fmt: skip
def test_a_manifest_with_a_right_checksum_and_a_wrong_value_names_it(
    changed: dict[str, object], problem: str, built: Path, tmp_path: Path
) -> None:
    values = json.loads((built / "dataset.json").read_text()) | changed
    del values["sha256"]
    values["sha256"] = _checksum(values)
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    with pytest.raises(IntegrityError, match=rf"dataset\.json.*{problem}"):
        DatasetManifest.read(tmp_path / "dataset.json")


def test_a_manifest_without_one_of_its_values_names_it(built: Path, tmp_path: Path) -> None:
    whole = json.loads((built / "dataset.json").read_text())
    for name in whole.keys() - {"format", "sha256"}:
        values = {key: value for key, value in whole.items() if key not in (name, "sha256")}
        values["sha256"] = _checksum(values)
        (tmp_path / "dataset.json").write_text(json.dumps(values))
        with pytest.raises(IntegrityError, match=name):
            DatasetManifest.read(tmp_path / "dataset.json")


@pytest.mark.parametrize("text", ["[1]", "null", "7", "[" * 100_000 + "]" * 100_000, '{"a": "\\ud800"}'])
def test_a_file_that_is_no_manifest_is_an_integrity_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"dataset\.json"):
        DatasetManifest.read(tmp_path / "dataset.json")
