"""Derive manifest and index from the build's records, without the source.

The build's own function derives them, so a check compares with what a build would write now, and a
repair can write it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.build.finalize import derive_files
from pipeline.build.jobs import read_commit
from pipeline.build.plan import BuildPlan, read_plan_header
from pipeline.errors import IntegrityError, PipelineError
from pipeline.foreign_files import read_regular
from pipeline.index import DatasetManifest
from pipeline.index.pages import check_expansion
from pipeline.index.table import INDEX_BYTES, read_index_table
from pipeline.layout import DatasetLayout

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
"""What reading a damaged JSON or parquet file can raise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DerivedDataset:
    """A dataset as its build records describe it."""

    plan: BuildPlan
    manifest: DatasetManifest
    index: pa.Table


def recorded_plan(layout: DatasetLayout) -> BuildPlan:
    """Read the whole plan of the build. Raises one of UNREADABLE."""
    check_record_expansion(layout.plan)
    header = read_plan_header(layout.plan)
    with pq.ParquetFile(layout.plan, page_checksum_verification=True) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        table = file.read()
    if len(groups) != header.shards:
        raise IntegrityError(f"{layout.plan} has {len(groups)} shards, not {header.shards}")
    return BuildPlan(
        dataset=header.dataset,
        recipe=header.recipe,
        classes=header.classes,
        files=header.files,
        hierarchy=header.hierarchy,
        rejected=header.rejected,
        items=table.replace_schema_metadata(None).unify_dictionaries().combine_chunks(),
        starts=tuple(np.cumsum([0, *groups[:-1]]).tolist()),
        hash=header.hash,
    )


def check_record_expansion(path: Path) -> None:
    """Raise one of UNREADABLE for a record that would take far more memory than its file."""
    check_expansion(read_regular(path, INDEX_BYTES))


def derive_from_records(layout: DatasetLayout, plan: BuildPlan) -> DerivedDataset:
    """Derive manifest and index from the plan and the shards' records alone. Raises one of UNREADABLE."""
    commits = [read_commit(layout.commit(shard)) for shard in range(plan.shards)]
    finished = derive_files(plan, commits)
    finished.manifest.check(f"the manifest of the records in {layout.work}")
    index = read_index_table(finished.index, layout.work, finished.manifest)
    return DerivedDataset(plan=plan, manifest=finished.manifest, index=index)


def recorded_name(layout: DatasetLayout) -> str:
    """The name the dataset was built under, from the first file of it that can be read."""
    try:
        return read_plan_header(layout.plan).dataset
    except UNREADABLE:
        pass
    try:
        return DatasetManifest.read(layout.manifest).name
    except UNREADABLE:
        return layout.root.resolve().name
