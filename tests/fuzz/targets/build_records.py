"""Records of a build: plan and commit record in `.build`, verified with the set that they describe."""

from __future__ import annotations

import json
import random
import shutil
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.verify.__main__ import verify
from tests.fuzz.json_mutations import mutate_json
from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.targets.index_parquet import change_table, stored_table
from tests.fuzz.tiny_set import recorded_set

NAMES = {b"p": "plan.parquet", b"c": "shard-000000.parquet"}
"""By the first byte of an input: the record that its other bytes replace."""


@cache
def changed_copy() -> Path:
    return Path(shutil.copytree(recorded_set(), recorded_set().with_name("changed-records")))


def seeds() -> list[bytes]:
    return [letter + (recorded_set() / ".build" / name).read_bytes() for letter, name in NAMES.items()]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Change the JSON beside the rows, the rows, or bytes."""
    letter, record = data[:1], data[1:]
    way = generator.choice(("bytes", "about", "about", "rows"))
    if way == "bytes":
        return letter + mutate_bytes(record, generator)
    try:
        table = pq.read_table(pa.BufferReader(record))
        if way == "about":
            about = mutate_json(json.loads(table.schema.metadata[b"about"]), generator)
            return letter + stored_table(table.replace_schema_metadata({"about": json.dumps(about)}))
        return letter + stored_table(change_table(table, generator))
    except (pa.ArrowException, ArithmeticError, LookupError, OSError, TypeError, ValueError, RecursionError):
        return letter + mutate_bytes(record, generator)


def check(data: bytes) -> None:
    """The set stays whole: a changed record is named, or harmless."""
    for letter, name in NAMES.items():
        whole = (recorded_set() / ".build" / name).read_bytes()
        (changed_copy() / ".build" / name).write_bytes(data[1:] if data[:1] == letter else whole)
    verify(changed_copy(), workers=1)
