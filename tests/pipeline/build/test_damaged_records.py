"""A plan or a commit record with a wrong value inside is an error that names the file and the field."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.build.jobs import read_commit
from pipeline.build.plan import read_plan_header, read_shard
from pipeline.errors import IntegrityError

DEEP = b"[" * 100_000 + b"]" * 100_000


def record_with(record: Path, about: bytes | dict[str, object], folder: Path) -> Path:
    """A copy of a record whose JSON holds other values, or is this text."""
    table = pq.read_table(record)
    if isinstance(about, dict):
        about = json.dumps(json.loads(table.schema.metadata[b"about"]) | about).encode()
    pq.write_table(table.replace_schema_metadata({b"about": about}), folder / record.name)
    return folder / record.name


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        (b"[1, 2]", "Expected `object`, got `array`"),
        (b"{", "is damaged"),
        (DEEP, "is damaged"),
        ({"shards": "4"}, "shards: Expected `int`, got `str`"),
        ({"hash": None}, "hash: Expected `str`, got `null`"),
        ({"classes": {"cat": 0}}, "classes: Expected `array`, got `object`"),
        ({"classes": [{"words": "cat"}]}, r"classes\[0\]: Object missing required field `name`"),
        ({"rejected": [["a.jpg"]]}, r"rejected\[0\]: Expected `array` of length 2"),
        ({"hierarchy": {"train": ["n1"]}}, "hierarchy.*Expected `object`, got `array`"),
        ({"recipe": []}, "recipe: the whole: Expected `object`, got `array`"),
        ({"recipe": {"sizes": [24], "encodings": {}}}, "recipe, encodings: an encoding is"),
        ({"weather": "fine"}, "has 'weather', which this version does not know"),
    ],
)
def test_a_plan_with_a_wrong_value_names_it(
    about: bytes | dict[str, object], problem: str, built: Path, tmp_path: Path
) -> None:
    plan = record_with(built / ".build" / "plan.parquet", about, tmp_path)
    with pytest.raises(IntegrityError, match=rf"plan\.parquet.*{problem}"):
        read_plan_header(plan)
    with pytest.raises(IntegrityError, match=rf"plan\.parquet.*{problem}"):
        read_shard(plan, 0)


@pytest.mark.parametrize(
    ("about", "problem"),
    [
        (b'"done"', "Expected `object`, got `str`"),
        (DEEP, "is damaged"),
        ({"plan": 7}, "plan: the whole: Expected `str`, got `int`"),
        ({"files": []}, "files: the whole: Expected `object`, got `array`"),
        ({"files": {"small": {}}}, "files: .*Expected `int`, got `str`"),
        ({"files": {"24": {"name": "a.tar"}}}, "files: .*missing required field `samples`"),
        ({"rejected": [{"name": "a"}]}, r"rejected: \[0\]: Expected `array`, got `object`"),
        ({"versions": {"pillow": 12}}, "versions: .*Expected `str`, got `int`"),
    ],
)
def test_a_commit_record_with_a_wrong_value_names_it(
    about: bytes | dict[str, object], problem: str, built: Path, tmp_path: Path
) -> None:
    record = record_with(built / ".build" / "shard-000001.parquet", about, tmp_path)
    with pytest.raises(IntegrityError, match=rf"shard-000001\.parquet.*{problem}"):
        read_commit(record)


def test_a_parquet_file_of_somebody_else_is_no_record(built: Path, tmp_path: Path) -> None:
    plan = tmp_path / "plan.parquet"
    pq.write_table(pq.read_table(built / "index.parquet").replace_schema_metadata(None), plan)
    with pytest.raises(IntegrityError, match=r"plan\.parquet.*Expected `object`, got `null`"):
        read_plan_header(plan)
    shutil.copy(plan, tmp_path / "shard-000000.parquet")
    with pytest.raises(IntegrityError, match="Expected `object`, got `null`"):
        read_commit(tmp_path / "shard-000000.parquet")
