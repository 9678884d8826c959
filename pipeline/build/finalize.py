"""Commit records become the index and the manifest. Idempotent: the same records give the same bytes."""

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

from pipeline.build.jobs import Commit, read_commit
from pipeline.build.plan import PARQUET, Plan
from pipeline.constants import QUALITY
from pipeline.errors import IntegrityError
from pipeline.index import Manifest
from pipeline.layout import Layout, write_whole
from pipeline.records import SPLITS, Rejected, ShardFile, rescaled_box

PLAIN: Final = ("class_id", "split", "group", "user", "kind", "frame")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The files that only a complete build has."""

    manifest: Manifest
    index: bytes
    wids: Mapping[int, bytes]
    """By size."""


def finalize(plan: Plan, layout: Layout) -> Manifest:
    """Write index and manifest from the commit records of all shards; the manifest comes last."""
    finished = derive(plan, [read_commit(layout.commit(shard)) for shard in range(plan.shards)])
    for size, listing in finished.wids.items():
        write_whole(layout.wids(size), listing)
    write_whole(layout.index, finished.index)
    write_whole(layout.manifest, finished.manifest.text().encode())
    shutil.rmtree(layout.scratch, ignore_errors=True)
    return finished.manifest


def derive(plan: Plan, commits: Sequence[Commit]) -> Finished:
    """What the plan and the commit records of all its shards lead to."""
    foreign = [shard for shard, commit in enumerate(commits) if commit.plan_hash != plan.hash]
    if foreign:
        raise IntegrityError(
            f"the records of shards {foreign[:5]} of {plan.dataset} belong to another plan; delete "
            "the folder .build beside them and build again"
        )
    rejected = (*plan.rejected, *(entry for commit in commits for entry in commit.rejected))
    index = _index(plan, commits)
    if index.num_rows == 0:
        raise IntegrityError(
            f"not one of {plan.items.num_rows:,} pictures of {plan.dataset} could be built; the first: "
            f"{rejected[0].name}: {rejected[0].reason}"
        )
    index_bytes = _parquet(index)
    shards = {size: _files(commits, size) for size in plan.recipe.sizes}
    manifest = Manifest(
        name=plan.dataset,
        plan_hash=plan.hash,
        recipe=plan.recipe,
        classes=plan.classes,
        hierarchy={s: {n: tuple(c) for n, c in g.items()} for s, g in plan.hierarchy.items()},
        samples=index.num_rows,
        splits=_splits(index),
        shards=shards,
        sources=plan.files,
        quarantined=rejected,
        versions=_versions(commits),
        index_sha256=hashlib.sha256(index_bytes).hexdigest(),
    )
    wids = {size: wids_text(f"{plan.dataset}-{size}", files) for size, files in shards.items()}
    return Finished(manifest=manifest, index=index_bytes, wids=wids)


def _index(plan: Plan, commits: Sequence[Commit]) -> pa.Table:
    """The plan's columns of the samples that were written, and where each lies; sorted by class."""
    places = pa.concat_tables([commit.places for commit in commits]).combine_chunks()
    shards = np.repeat(np.arange(len(commits)), [commit.places.num_rows for commit in commits])
    items = plan.items.take(places["key"])
    columns = {"key": places["key"], **{name: items[name] for name in PLAIN}}
    if len(items["split_lite"].unique()) > 1:
        columns["split_lite"] = items["split_lite"]
    columns |= _annotations(plan, items)
    columns["shard"] = pa.array(shards.astype(np.int32))
    columns |= {name: places[name] for name in places.column_names if name != "key"}
    table = pa.table(columns)
    order = np.argsort(items["class_id"].to_numpy(), kind="stable")
    return table.take(pa.array(order)).unify_dictionaries().combine_chunks()


def _annotations(plan: Plan, items: pa.Table) -> dict[str, pa.Array]:
    """Quality flags, and the box at each size; only where the source has annotations."""
    columns: dict[str, pa.Array] = {}
    quality, boxes = items["quality"].combine_chunks(), items["box"].combine_chunks()
    known = pc.list_value_length(quality).to_numpy() == len(QUALITY)
    if known.any():
        flags = np.full((len(quality), len(QUALITY)), -1, np.int8)
        flags[known] = quality.flatten().to_numpy().reshape(-1, len(QUALITY))
        columns |= {name: pa.array(flags[:, i].copy()) for i, name in enumerate(QUALITY)}
    boxed = boxes.is_valid().to_numpy(zero_copy_only=False)
    if boxed.any():
        for size in plan.recipe.sizes:
            scaled = np.full((len(boxes), 4), -1, np.int16)
            scaled[boxed] = [rescaled_box(box, size) for box in boxes.drop_null().to_pylist()]
            flat = pa.array(scaled.ravel())
            columns[f"box_{size}"] = pa.FixedSizeListArray.from_arrays(flat, 4)
    return columns


def _splits(index: pa.Table) -> dict[str, int]:
    entries = index["split"].combine_chunks().value_counts().to_pylist()
    counts = {entry["values"]: entry["counts"] for entry in entries}
    return {split: counts[split] for split in SPLITS if split in counts}


def _files(commits: Iterable[Commit], size: int) -> tuple[ShardFile, ...]:
    return tuple(commit.files[size] for commit in commits if size in commit.files)


def _versions(commits: Iterable[Commit]) -> tuple[dict[str, str], ...]:
    different = {json.dumps(commit.versions, sort_keys=True) for commit in commits}
    return tuple(json.loads(text) for text in sorted(different))


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **PARQUET)
    return sink.getvalue()


def wids_text(name: str, files: Sequence[ShardFile]) -> bytes:
    """The index that `wids.ShardListDataset` opens; URLs are relative to the file."""
    shards = [{"url": f.name, "nsamples": f.samples, "filesize": f.bytes} for f in files]
    about = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "name": name,
        "shardlist": shards,
    }
    return (json.dumps(about, indent=1) + "\n").encode()


def all_rejected(plan: Plan, layout: Layout) -> tuple[Rejected, ...]:
    """What the plan and the finished shards rejected so far."""
    done = (layout.commit(shard) for shard in range(plan.shards))
    late = (read_commit(path).rejected for path in done if path.exists())
    return (*plan.rejected, *(entry for entries in late for entry in entries))
