"""What the build's records say the manifest and the index must be, without the source.

They lead to it by the same function that the build uses; so a check compares with what a build
would write now, and a repair can write it.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.build.finalize import derive
from pipeline.build.jobs import read_commit
from pipeline.build.plan import Plan, read_plan_header
from pipeline.errors import IntegrityError, PipelineError
from pipeline.index import Manifest
from pipeline.layout import Layout
from pipeline.records import ClassRecord, Recipe, Rejected, SourceFile

UNREADABLE: Final = (
    PipelineError,
    pa.ArrowException,
    OSError,
    ArithmeticError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What reading a damaged JSON or parquet file raises, depending on which byte is hit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Derived:
    """What the records lead to."""

    plan: Plan
    manifest: Manifest
    index: pa.Table


def recorded_plan(layout: Layout) -> Plan:
    """The plan that was built, whole. Raises one of UNREADABLE."""
    header = read_plan_header(layout.plan)
    with pq.ParquetFile(layout.plan, page_checksum_verification=True) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        table = file.read()
    if len(groups) != header["shards"]:
        raise IntegrityError(f"{layout.plan} has {len(groups)} shards, not {header['shards']}")
    return Plan(
        dataset=header["dataset"],
        recipe=Recipe.from_described(header["recipe"]),
        classes=tuple(ClassRecord(**record) for record in header["classes"]),
        files=tuple(SourceFile(**file) for file in header["files"]),
        hierarchy=header["hierarchy"],
        rejected=tuple(Rejected(*entry) for entry in header["rejected"]),
        items=table.replace_schema_metadata(None).unify_dictionaries().combine_chunks(),
        starts=tuple(np.cumsum([0, *groups[:-1]]).tolist()),
        hash=header["hash"],
    )


def rederive(layout: Layout) -> Derived:
    """Plan, manifest and index from the records alone. Raises one of UNREADABLE."""
    plan = recorded_plan(layout)
    finished = derive(plan, [read_commit(layout.commit(shard)) for shard in range(plan.shards)])
    index = pq.read_table(io.BytesIO(finished.index))
    return Derived(plan=plan, manifest=finished.manifest, index=index)


def read_index(path: Path) -> pa.Table:
    """All columns as they are stored, in memory."""
    return pq.read_table(path, memory_map=False)


def recorded_name(layout: Layout) -> str:
    """What the dataset was built as, by whichever account can be read."""
    try:
        return str(read_plan_header(layout.plan)["dataset"])
    except UNREADABLE:
        pass
    try:
        return Manifest.read(layout.manifest).name
    except UNREADABLE:
        return layout.root.resolve().name
