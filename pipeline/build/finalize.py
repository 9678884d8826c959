"""Write the index and the manifest from the commit records; the same records give the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.build.jobs import CommitRecord, read_commit
from pipeline.build.plan import PARQUET_OPTIONS, BuildPlan
from pipeline.constants import QUALITY_ISSUES
from pipeline.errors import IntegrityError, first_few
from pipeline.index import DatasetManifest
from pipeline.layout import DatasetLayout, write_atomically
from pipeline.records import SPLITS, Rejected, ShardFile, rescale_box

COPIED_COLUMNS: Final = ("class_id", "split", "group", "user", "kind", "frame")


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFiles:
    """The files that only a complete build has."""

    manifest: DatasetManifest
    index: bytes
    wids: Mapping[int, bytes]
    """By size."""


def finalize(plan: BuildPlan, layout: DatasetLayout) -> DatasetManifest:
    """Write index and manifest from the commit records of all shards; the manifest comes last."""
    finished = derive_files(plan, [read_commit(layout.commit(shard)) for shard in range(plan.shards)])
    for size, listing in finished.wids.items():
        write_atomically(layout.wids(size), listing)
    write_atomically(layout.index, finished.index)
    write_atomically(layout.manifest, finished.manifest.text().encode())
    shutil.rmtree(layout.scratch, ignore_errors=True)
    return finished.manifest


def derive_files(plan: BuildPlan, commits: Sequence[CommitRecord]) -> DatasetFiles:
    """Derive index, manifest and wids files from a plan and the commit records of all its shards."""
    foreign = [shard for shard, commit in enumerate(commits) if commit.plan_hash != plan.hash]
    if foreign:
        raise IntegrityError(
            f"the records of shards {first_few(foreign)} of {plan.dataset} belong to another plan; delete "
            "the folder .build beside them and build again"
        )
    rejected = (*plan.rejected, *(entry for commit in commits for entry in commit.rejected))
    index = _index_table(plan, commits)
    if index.num_rows == 0:
        raise IntegrityError(
            f"not one of {plan.items.num_rows:,} pictures of {plan.dataset} could be built; the first: "
            f"{rejected[0].name}: {rejected[0].reason}"
        )
    index_bytes = _parquet_bytes(index)
    shards = {size: _shard_files(commits, size) for size in plan.recipe.sizes}
    manifest = DatasetManifest(
        name=plan.dataset,
        plan_hash=plan.hash,
        recipe=plan.recipe,
        classes=plan.classes,
        hierarchy=plan.hierarchy,
        samples=index.num_rows,
        splits=_split_counts(index),
        shards=shards,
        sources=plan.files,
        quarantined=rejected,
        damaged=tuple(entry for commit in commits for entry in commit.damaged),
        versions=_distinct_versions(commits),
        index_sha256=hashlib.sha256(index_bytes).hexdigest(),
    )
    wids = {size: wids_text(f"{plan.dataset}-{size}", files) for size, files in shards.items()}
    return DatasetFiles(manifest=manifest, index=index_bytes, wids=wids)


def _index_table(plan: BuildPlan, commits: Sequence[CommitRecord]) -> pa.Table:
    """The plan's columns of the samples that were written, and their locations; sorted by class."""
    locations = pa.concat_tables([commit.locations for commit in commits]).combine_chunks()
    shards = np.repeat(np.arange(len(commits)), [commit.locations.num_rows for commit in commits])
    items = plan.items.take(locations["key"])
    columns = {"key": locations["key"], **{name: items[name] for name in COPIED_COLUMNS}}
    if len(items["split_lite"].unique()) > 1:
        columns["split_lite"] = items["split_lite"]
    columns |= _annotation_columns(plan, items)
    columns["shard"] = pa.array(shards.astype(np.int32))
    columns |= {name: locations[name] for name in locations.column_names if name != "key"}
    table = pa.table(columns)
    order = np.argsort(items["class_id"].to_numpy(), kind="stable")
    return table.take(pa.array(order)).unify_dictionaries().combine_chunks()


def _annotation_columns(plan: BuildPlan, items: pa.Table) -> dict[str, pa.Array]:
    """Quality flags, and the box at each size; only where the source has annotations."""
    columns: dict[str, pa.Array] = {}
    quality, boxes = items["quality"].combine_chunks(), items["box"].combine_chunks()
    annotated = pc.list_value_length(quality).to_numpy() == len(QUALITY_ISSUES)
    if annotated.any():
        flags = np.full((len(quality), len(QUALITY_ISSUES)), -1, np.int8)
        flags[annotated] = quality.flatten().to_numpy().reshape(-1, len(QUALITY_ISSUES))
        columns |= {name: pa.array(flags[:, i].copy()) for i, name in enumerate(QUALITY_ISSUES)}
    boxed = boxes.is_valid().to_numpy(zero_copy_only=False)
    if boxed.any():
        for size in plan.recipe.sizes:
            scaled = np.full((len(boxes), 4), -1, np.int16)
            scaled[boxed] = [rescale_box(box, size) for box in boxes.drop_null().to_pylist()]
            flat = pa.array(scaled.ravel())
            columns[f"box_{size}"] = pa.FixedSizeListArray.from_arrays(flat, 4)
    return columns


def _split_counts(index: pa.Table) -> dict[str, int]:
    entries = index["split"].combine_chunks().value_counts().to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in entries}
    return {split: counts[split] for split in SPLITS if split in counts}


def _shard_files(commits: Iterable[CommitRecord], size: int) -> tuple[ShardFile, ...]:
    return tuple(commit.files[size] for commit in commits if size in commit.files)


def _distinct_versions(commits: Iterable[CommitRecord]) -> tuple[dict[str, str], ...]:
    different = {json.dumps(commit.versions, sort_keys=True) for commit in commits}
    return tuple(json.loads(text) for text in sorted(different))


def _parquet_bytes(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **PARQUET_OPTIONS)
    return sink.getvalue()


def wids_text(name: str, files: Sequence[ShardFile]) -> bytes:
    """The index that `wids.ShardListDataset` opens; URLs are relative to the file."""
    shards = [{"url": f.name, "nsamples": f.samples, "filesize": f.bytes} for f in files]
    about = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "name": name, "shardlist": shards}
    return (json.dumps(about, indent=1) + "\n").encode()


def problems_so_far(plan: BuildPlan, layout: DatasetLayout) -> tuple[tuple[Rejected, ...], ...]:
    """The images that the plan and the finished shards have rejected so far, and the damaged ones they built."""
    paths = (layout.commit(shard) for shard in range(plan.shards))
    commits = [read_commit(path) for path in paths if path.exists()]
    rejected = (*plan.rejected, *(entry for commit in commits for entry in commit.rejected))
    return rejected, tuple(entry for commit in commits for entry in commit.damaged)
