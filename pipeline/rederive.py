"""What the build's records say the manifest and the index must be, without the source.

`finalize` is run again, into a temporary folder; so a check compares with what a build would write
now, and a repair can write it.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import IntegrityError, PipelineError
from pipeline.finalize import finalize
from pipeline.index import Manifest
from pipeline.jobs import read_commit
from pipeline.layout import Layout
from pipeline.plan import Plan, read_plan_header
from pipeline.records import ClassRecord, Encoding, Recipe, Rejected, SourceFile

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


def recorded_plan(layout: Layout, found: Manifest | None) -> Plan:
    """The plan that was built, whole. Raises one of UNREADABLE."""
    header = read_plan_header(layout.plan)
    with pq.ParquetFile(layout.plan) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        table = file.read()
    if len(groups) != header["shards"]:
        raise IntegrityError(f"{layout.plan} has {len(groups)} shards, not {header['shards']}")
    return Plan(
        dataset=header["dataset"],
        recipe=recipe_from(header["recipe"]),
        classes=tuple(ClassRecord(**record) for record in header["classes"]),
        items=table.replace_schema_metadata(None).unify_dictionaries().combine_chunks(),
        starts=tuple(np.cumsum([0, *groups[:-1]]).tolist()),
        hash=header["hash"],
        **_survey_facts(header, layout, found),
    )


def _survey_facts(header: dict[str, Any], layout: Layout, found: Manifest | None) -> dict[str, Any]:
    """Files, hierarchy and early rejects: from the plan, or from the manifest where it lacks them."""
    if "files" in header:
        return {
            "files": tuple(SourceFile(**file) for file in header["files"]),
            "hierarchy": header["hierarchy"],
            "rejected": tuple(Rejected(*entry) for entry in header["rejected"]),
        }
    if found is None:
        raise IntegrityError(f"{layout.plan} lacks what only {layout.manifest.name} says")
    commits = (read_commit(layout.commit(shard)) for shard in range(header["shards"]))
    early = len(found.quarantined) - sum(len(commit.rejected) for commit in commits)
    return {
        "files": found.sources,
        "hierarchy": found.hierarchy,
        "rejected": found.quarantined[:early],
    }


def recipe_from(described: dict[str, Any]) -> Recipe:
    """The inverse of `Recipe.described`."""
    sizes = tuple(described["sizes"])
    encodings = tuple(Encoding.parse(described["encodings"][str(size)]) for size in sizes)
    return Recipe(**(described | {"sizes": sizes, "encodings": encodings}))


def rederive(layout: Layout, found: Manifest | None) -> Derived:
    """Plan, manifest and index from the records alone. Raises one of UNREADABLE."""
    plan = recorded_plan(layout, found)
    with TemporaryDirectory(prefix="rederive-") as folder:
        copy = Layout(Path(folder))
        copy.work.mkdir()
        for size in plan.recipe.sizes:
            copy.wids(size).parent.mkdir()
        for shard in range(plan.shards):
            shutil.copyfile(layout.commit(shard), copy.commit(shard))
        manifest = finalize(plan, copy)
        return Derived(plan=plan, manifest=manifest, index=read_index(copy.index))


def read_index(path: Path) -> pa.Table:
    """All columns as they are stored, in memory."""
    return pq.read_table(path, memory_map=False)
