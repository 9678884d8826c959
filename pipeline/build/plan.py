"""Items become shards: their order, their numbers and the plan's hash. Pure and deterministic.

The order within a class is that of a keyed hash of the items' names, so it does not depend on
any random generator's version, on the file system or on the machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.constants import FEWEST_SAMPLES, FEWEST_SHARDS, FORMAT, SHARD_SAMPLES
from pipeline.errors import IntegrityError
from pipeline.layout import whole_file
from pipeline.records import ClassRecord, Item, Recipe, Rejected, SourceFile, Survey

PARQUET: Final[dict[str, Any]] = {"compression": "zstd", "write_page_checksum": True}
"""How every parquet file of a build is written."""
CHUNK: Final = 65_536  # items turned into columns at a time
WORD: Final = pa.dictionary(pa.int32(), pa.string())  # few different values, many rows
SCHEMA: Final = pa.schema(
    [
        ("name", pa.string()),
        ("class_id", pa.int32()),
        ("split", WORD),
        ("file", WORD),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("packing", WORD),
        ("crop", pa.list_(pa.int32())),
        ("invert", pa.bool_()),
        ("group", WORD),
        ("user", WORD),
        ("kind", WORD),
        ("frame", pa.int32()),
        ("quality", pa.list_(pa.int8())),
        ("box", pa.list_(pa.int32())),
        ("split_lite", WORD),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What will be built, complete before the first picture is decoded."""

    dataset: str
    recipe: Recipe
    classes: tuple[ClassRecord, ...]
    files: tuple[SourceFile, ...]
    hierarchy: Mapping[str, Mapping[str, Sequence[str]]]
    rejected: tuple[Rejected, ...]
    items: pa.Table
    """Columns of `Item`, in the order they are written; row number = the sample's key."""
    starts: tuple[int, ...]
    """First row of each shard."""
    hash: str

    @property
    def shards(self) -> int:
        return len(self.starts)

    def rows(self, shard: int) -> range:
        """The rows (and so the keys) of one shard."""
        ends = (*self.starts[1:], self.items.num_rows)
        return range(self.starts[shard], ends[shard])


def make_plan(dataset: str, survey: Survey, recipe: Recipe) -> Plan:
    """List, order, cut into shards, hash."""
    digest = hashlib.sha256(json.dumps(_header(dataset, survey, recipe), sort_keys=True).encode())
    rejected: list[Rejected] = []
    keys: list[NDArray[np.uint64]] = []
    batches = list(_batches(survey.items, rejected, keys, digest, recipe.seed))
    if not batches:
        raise IntegrityError(
            f"{dataset} holds no picture that can be built; {len(rejected)} were rejected"
            + (f", the first: {rejected[0].name}: {rejected[0].reason}" if rejected else "")
        )
    table = pa.Table.from_batches(batches, SCHEMA).unify_dictionaries()
    order = _order(table, np.concatenate(keys), survey, recipe)
    table = table.take(pa.array(order)).combine_chunks()
    return Plan(
        dataset=dataset,
        recipe=recipe,
        classes=survey.classes,
        files=survey.files,
        hierarchy=survey.hierarchy,
        rejected=tuple(rejected),
        items=table,
        starts=_cuts(table, recipe, keep_groups=survey.ordered),
        hash=digest.hexdigest(),
    )


def _header(dataset: str, survey: Survey, recipe: Recipe) -> dict[str, object]:
    return {
        "format": FORMAT,
        "dataset": dataset,
        "recipe": recipe.described(),
        "classes": [asdict(record) for record in survey.classes],
        "files": [asdict(file) for file in survey.files],
        "ordered": survey.ordered,
    }


def _batches(
    items: Iterable[Item | Rejected],
    rejected: list[Rejected],
    keys: list[NDArray[np.uint64]],
    digest: Any,  # hashlib's object has no public type
    seed: int,
) -> Iterator[pa.RecordBatch]:
    """Columns from items; what is rejected, each item's key and the digest are filled on the way."""
    stream = iter(items)
    while chunk := list(islice(stream, CHUNK)):
        rejected += (entry for entry in chunk if isinstance(entry, Rejected))
        good = [entry for entry in chunk if isinstance(entry, Item)]
        digest.update(repr([tuple(entry) for entry in chunk]).encode())
        if not good:
            continue
        columns = zip(*good, strict=True)
        arrays = [
            pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)
        ]
        keys.append(np.array([_key(item.name, seed) for item in good], np.uint64))
        yield pa.record_batch(arrays, schema=SCHEMA)


def _key(name: str, seed: int) -> int:
    hashed = hashlib.blake2b(
        name.encode("utf-8", "surrogateescape"), digest_size=8, key=b"%d" % seed
    )
    return int.from_bytes(hashed.digest(), "little")


def _order(
    table: pa.Table, keys: NDArray[np.uint64], survey: Survey, recipe: Recipe
) -> NDArray[np.int64]:
    """Row numbers of the listing in the order of writing."""
    class_ids = table["class_id"].to_numpy()
    if survey.ordered:
        keys = np.arange(len(keys), dtype=np.uint64)
    order = np.lexsort((keys, class_ids))
    if recipe.limit_per_class is not None:
        sorted_ids = class_ids[order]
        first = np.searchsorted(sorted_ids, sorted_ids)
        order = order[np.arange(len(order)) - first < recipe.limit_per_class]
    if recipe.order == "shuffled":
        names = table["name"].take(pa.array(order)).to_pylist()
        mixed = np.array([_key(name, recipe.seed) for name in names], np.uint64)
        order = order[np.argsort(mixed, kind="stable")]
    return order.astype(np.int64)


def _cuts(table: pa.Table, recipe: Recipe, *, keep_groups: bool) -> tuple[int, ...]:
    """First rows of the shards; a video stays in one shard where that costs little balance."""
    rows = table.num_rows
    size = recipe.shard_samples or min(
        SHARD_SAMPLES, max(FEWEST_SAMPLES, -(-rows // FEWEST_SHARDS))
    )
    cuts = np.arange(0, rows, size)
    if keep_groups and len(cuts) > 1:
        codes = pc.fill_null(table["group"].combine_chunks().indices, -1).to_numpy()
        borders = np.flatnonzero(np.diff(codes, prepend=codes[0] - 1))
        nearest = borders[np.searchsorted(borders, cuts, side="right") - 1]
        cuts = np.unique(np.where(cuts - nearest <= size // 4, nearest, cuts))
    return tuple(cuts.tolist())


def write_plan(plan: Plan, path: Path) -> None:
    """One row group per shard, so that a job reads its own rows and nothing else. A plan stays."""
    about = {
        "dataset": plan.dataset,
        "hash": plan.hash,
        "recipe": plan.recipe.described(),
        "classes": [asdict(record) for record in plan.classes],
        "files": [asdict(file) for file in plan.files],
        "hierarchy": plan.hierarchy,
        "rejected": plan.rejected,
        "shards": plan.shards,
    }
    schema = plan.items.schema.with_metadata({"about": json.dumps(about, sort_keys=True)})
    with whole_file(path, first=True) as sink, pq.ParquetWriter(sink, schema, **PARQUET) as writer:
        for shard in range(plan.shards):
            rows = plan.rows(shard)
            part = plan.items.slice(rows.start, len(rows)).replace_schema_metadata(schema.metadata)
            writer.write_table(part, row_group_size=len(rows))


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """What a job knows of the plan: its own rows."""

    shard: int
    first_key: int
    items: tuple[Item, ...]
    class_names: tuple[str, ...]
    plan_hash: str


def read_shard(path: Path, shard: int) -> PlannedShard:
    """One shard's rows of a written plan."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        about = json.loads(file.schema_arrow.metadata[b"about"])
        groups = (file.metadata.row_group(group).num_rows for group in range(shard))
        first_key = sum(groups)
        table = file.read_row_group(shard)
    return PlannedShard(
        shard=shard,
        first_key=first_key,
        items=tuple(_items(table)),
        class_names=tuple(record["name"] for record in about["classes"]),
        plan_hash=about["hash"],
    )


def read_plan_header(path: Path) -> dict[str, Any]:
    """Dataset, hash, recipe, classes and number of shards of a written plan."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return dict(json.loads(file.schema_arrow.metadata[b"about"]))


def _items(table: pa.Table) -> Iterator[Item]:
    columns = [column.to_pylist() for column in table.columns]
    for column, field in zip(columns, table.schema, strict=True):
        if pa.types.is_list(field.type):
            column[:] = [entry if entry is None else tuple(entry) for entry in column]
    return (Item(*row) for row in zip(*columns, strict=True))
