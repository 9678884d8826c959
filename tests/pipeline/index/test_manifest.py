"""A manifest with a wrong value, or one that contradicts itself, is an error that names it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import IntegrityError
from pipeline.index import DatasetManifest
from pipeline.index.manifest import _checksum


def write_values(path: Path, values: dict[str, Any]) -> Path:
    """Write a manifest of these values, with their checksum."""
    values = {name: value for name, value in values.items() if name != "sha256"}
    path.write_text(json.dumps({**values, "sha256": _checksum(values)}))
    return path


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
    write_values(tmp_path / "dataset.json", values)
    with pytest.raises(IntegrityError, match=rf"dataset\.json.*{problem}"):
        DatasetManifest.read(tmp_path / "dataset.json")


def test_a_manifest_without_one_of_its_values_names_it(built: Path, tmp_path: Path) -> None:
    whole = json.loads((built / "dataset.json").read_text())
    for name in whole.keys() - {"format", "sha256"}:
        values = {key: value for key, value in whole.items() if key != name}
        write_values(tmp_path / "dataset.json", values)
        with pytest.raises(IntegrityError, match=name):
            DatasetManifest.read(tmp_path / "dataset.json")


@pytest.mark.parametrize("text", ["[1]", "null", "7", "[" * 100_000 + "]" * 100_000, '{"a": "\\ud800"}'])
def test_a_file_that_is_no_manifest_is_an_integrity_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"dataset\.json"):
        DatasetManifest.read(tmp_path / "dataset.json")


def changed_shard(values: dict[str, Any], size: str, **changes: object) -> dict[str, Any]:
    """The values with the first shard of a size changed."""
    first, *others = values["shards"][size]
    return {"shards": {**values["shards"], size: [{**first, **changes}, *others]}}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda _: {"samples": 61}, "says 61 samples and lists 60"),
        (lambda _: {"samples": 0}, "says 0 samples"),
        (lambda _: {"samples": -(10**400)}, "says -1"),
        (lambda v: {"shards": {"24": v["shards"]["24"]}}, r"lists shards of \[24\] pixels and was built at"),
        (lambda v: {"shards": {**v["shards"], "96": []}}, "lists shards of"),
        (lambda v: {"shards": {**v["shards"], "24": []}}, "says 60 samples and lists 0 in its shards of 24"),
        (lambda v: changed_shard(v, "24", name="../shard-000000.tar"), "lists other names than shard-NNNNNN"),
        (lambda v: changed_shard(v, "24", name="shard-000001.tar"), "lists other names .* each once"),
        (lambda v: changed_shard(v, "48", bytes=-1), "impossible numbers of samples or bytes"),
        (lambda v: changed_shard(v, "48", bytes=10**400), "impossible numbers of samples or bytes"),
        (lambda v: changed_shard(v, "48", samples=0), "impossible numbers of samples or bytes"),
        (lambda _: {"splits": {"": 59}}, "says 60 samples, and its splits have"),
        (lambda _: {"splits": {"": 61, "train": -1}}, "says 60 samples, and its splits have"),
        (lambda _: {"splits": {"mine": 60}}, r"has splits \['mine'\], which are none"),
        (
            lambda v: {"recipe": {**v["recipe"], "sizes": [30_000], "encodings": {"30000": "raw"}}},
            "recipe: a size is up to 8,192 pixels, got 30,000",
        ),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(
    change: Any, problem: str, built: Path, tmp_path: Path
) -> None:
    values = json.loads((built / "dataset.json").read_text())
    write_values(tmp_path / "dataset.json", values | change(values))
    with pytest.raises(IntegrityError, match=rf"dataset\.json.*{problem}"):
        DatasetManifest.read(tmp_path / "dataset.json")


def test_text_that_no_file_can_hold_is_refused(built: Path, tmp_path: Path) -> None:
    for name in ('"samples"', '"name": "pets"'):
        text = (built / "dataset.json").read_text().replace(name, name[:-1] + '\\ud800"')
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(IntegrityError, match=r"dataset\.json"):
            DatasetManifest.read(tmp_path / "dataset.json")


def test_values_nested_deeper_than_any_manifest_s_are_refused(built: Path, tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    write_values(tmp_path / "dataset.json", json.loads((built / "dataset.json").read_text()) | {"name": deep})
    with pytest.raises(IntegrityError, match="nests more than 64 deep"):
        DatasetManifest.read(tmp_path / "dataset.json")
