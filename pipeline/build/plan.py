"""Plan a build: the order of the items, their keys, their shards and the plan's hash.

The order within a class is that of a keyed hash of the items' names, so it does not depend on the
version of a random generator, on the file system or on the machine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.build.plan_columns import PLAN_SCHEMA, item_columns, items_from
from pipeline.constants import FEWEST_SAMPLES, FEWEST_SHARDS, SHARD_FORMAT, SHARD_SAMPLES
from pipeline.errors import IntegrityError, errors_about
from pipeline.layout import atomic_file
from pipeline.records import ClassRecord, Item, Recipe, Rejected, SourceFile, Survey, printable_text
from pipeline.settings import parse_json, typed

PARQUET_OPTIONS: Final[dict[str, Any]] = {"compression": "zstd", "write_page_checksum": True}
"""The options of every parquet file that a build writes."""
ROWS_PER_BATCH: Final = 65_536  # items that become columns at a time


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildPlan:
    """Everything that will be built, decided before the first image is decoded."""

    dataset: str
    recipe: Recipe
    classes: tuple[ClassRecord, ...]
    files: tuple[SourceFile, ...]
    hierarchy: Mapping[str, Mapping[str, tuple[str, ...]]]
    rejected: tuple[Rejected, ...]
    items: pa.Table
    """Columns of `Item` in the order of writing; the row number is the sample's key."""
    starts: tuple[int, ...]
    """First row of each shard."""
    hash: str

    @property
    def shards(self) -> int:
        return len(self.starts)

    def rows(self, shard: int) -> range:
        """The rows, which are the keys, of one shard."""
        ends = (*self.starts[1:], self.items.num_rows)
        return range(self.starts[shard], ends[shard])


def make_plan(dataset: str, survey: Survey, recipe: Recipe) -> BuildPlan:
    """List the items, order them, cut the order into shards, and hash it all."""
    survey = _printable_survey(survey)
    digest = hashlib.sha256(json.dumps(_hashed_values(dataset, survey, recipe), sort_keys=True).encode())
    rejected: list[Rejected] = []
    keys: list[NDArray[np.uint64]] = []
    batches = list(_item_batches(survey.items, rejected, keys, digest, recipe.seed))
    if not batches:
        raise IntegrityError(
            f"{dataset} holds no picture that can be built; {len(rejected)} were rejected"
            + (f", the first: {rejected[0].name}: {rejected[0].reason}" if rejected else "")
        )
    table = pa.Table.from_batches(batches, PLAN_SCHEMA).unify_dictionaries()
    order = _writing_order(table, np.concatenate(keys), survey, recipe)
    table = table.take(pa.array(order)).combine_chunks()
    return BuildPlan(
        dataset=dataset,
        recipe=recipe,
        classes=survey.classes,
        files=survey.files,
        hierarchy=survey.hierarchy,
        rejected=tuple(rejected),
        items=table,
        starts=_shard_starts(table, recipe, keep_groups=survey.ordered),
        hash=digest.hexdigest(),
    )


def _printable_survey(survey: Survey) -> Survey:
    """The survey with names of classes and archives that any file can hold."""
    return replace(
        survey,
        classes=tuple(record.printable() for record in survey.classes),
        files=tuple(replace(file, name=printable_text(file.name)) for file in survey.files),
    )


def _hashed_values(dataset: str, survey: Survey, recipe: Recipe) -> dict[str, object]:
    return {
        "format": SHARD_FORMAT,
        "dataset": dataset,
        "recipe": recipe.described(),
        "classes": [asdict(record) for record in survey.classes],
        "files": [asdict(file) for file in survey.files],
        "ordered": survey.ordered,
    }


def _item_batches(
    items: Iterable[Item | Rejected],
    rejected: list[Rejected],
    keys: list[NDArray[np.uint64]],
    digest: Any,  # hashlib's object has no public type
    seed: int,
) -> Iterator[pa.RecordBatch]:
    """Columns from items; fills `rejected`, `keys` (one for each item) and the digest on the way."""
    stream = iter(items)
    while chunk := list(islice(stream, ROWS_PER_BATCH)):
        rejected += (entry.printable() for entry in chunk if isinstance(entry, Rejected))
        good = [entry for entry in chunk if isinstance(entry, Item)]
        digest.update(repr([_hashed_entry(entry) for entry in chunk]).encode())
        if not good:
            continue
        keys.append(np.array([_hashed_name(item.name, seed) for item in good], np.uint64))
        yield item_columns(good)


def _hashed_entry(entry: Item | Rejected) -> tuple[object, ...]:
    """What the plan's hash knows of an entry: not the size of a file, which sets of before it was noted lack.

    A file of another size is found when it is read.
    """
    if isinstance(entry, Item) and entry.packing == "whole":
        return tuple(entry._replace(length=-1, packing="plain"))
    return tuple(entry)


def _hashed_name(name: str, seed: int) -> int:
    hashed = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=b"%d" % seed)
    return int.from_bytes(hashed.digest(), "little")


def _writing_order(
    table: pa.Table, keys: NDArray[np.uint64], survey: Survey, recipe: Recipe
) -> NDArray[np.int64]:
    """The row numbers of the listing in the order of writing."""
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
        shuffled = np.array([_hashed_name(name, recipe.seed) for name in names], np.uint64)
        order = order[np.argsort(shuffled, kind="stable")]
    return order.astype(np.int64)


def _shard_starts(table: pa.Table, recipe: Recipe, *, keep_groups: bool) -> tuple[int, ...]:
    """The first row of each shard; a video is kept in one shard where sizes stay about equal."""
    rows = table.num_rows
    size = recipe.shard_samples or min(SHARD_SAMPLES, max(FEWEST_SAMPLES, -(-rows // FEWEST_SHARDS)))
    cuts = np.arange(0, rows, size)
    if keep_groups and len(cuts) > 1:
        codes = pc.fill_null(table["group"].combine_chunks().indices, -1).to_numpy()
        borders = np.flatnonzero(np.diff(codes, prepend=codes[0] - 1))
        nearest = borders[np.searchsorted(borders, cuts, side="right") - 1]
        cuts = np.unique(np.where(cuts - nearest <= size // 4, nearest, cuts))
    return tuple(cuts.tolist())


def write_plan(plan: BuildPlan, path: Path) -> None:
    """Write a plan with a row group for each shard, so that a job reads only its own rows.

    A plan that is already there stays.
    """
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
    with atomic_file(path, first=True) as sink, pq.ParquetWriter(sink, schema, **PARQUET_OPTIONS) as writer:
        for shard in range(plan.shards):
            rows = plan.rows(shard)
            part = plan.items.slice(rows.start, len(rows)).replace_schema_metadata(schema.metadata)
            writer.write_table(part, row_group_size=len(rows))


def changed_files(plan: BuildPlan, path: Path) -> list[str]:
    """The images whose files had another size when the plan in this file, of the same hash, was written."""
    try:
        written = pq.read_table(path, columns=["packing", "length"], memory_map=False)
    except (pa.ArrowException, OSError):
        return []  # a plan that is damaged or gone is another check's problem
    if written.num_rows != plan.items.num_rows:
        return []
    # plans of before sizes were noted have none
    listed = pc.equal(written["packing"].cast(pa.string()), "whole")
    changed = pc.and_(listed, pc.not_equal(written["length"], plan.items["length"]))
    names: list[str] = plan.items["name"].filter(changed).to_pylist()
    return names


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanHeader:
    """A written plan without its rows."""

    dataset: str
    hash: str
    recipe: Recipe
    classes: tuple[ClassRecord, ...]
    files: tuple[SourceFile, ...]
    hierarchy: Mapping[str, Mapping[str, tuple[str, ...]]]
    rejected: tuple[Rejected, ...]
    shards: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedShard:
    """The part of a plan that a job needs: the rows of its shard."""

    shard: int
    first_key: int
    items: tuple[Item, ...]
    class_names: tuple[str, ...]
    plan_hash: str


def read_shard(path: Path, shard: int) -> PlannedShard:
    """Read one shard's rows of a written plan."""
    with errors_about(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        header = _header_of(file.schema_arrow, path)
        groups = (file.metadata.row_group(group).num_rows for group in range(shard))
        first_key = sum(groups)
        table = file.read_row_group(shard)
    return PlannedShard(
        shard=shard,
        first_key=first_key,
        items=tuple(items_from(table)),
        class_names=tuple(record.name for record in header.classes),
        plan_hash=header.hash,
    )


def read_plan_header(path: Path) -> PlanHeader:
    """Read a written plan without its rows. Raises IntegrityError that names a wrong field."""
    with errors_about(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        return _header_of(file.schema_arrow, path)


def _header_of(schema: pa.Schema, path: Path) -> PlanHeader:
    values = read_about(schema, path)
    recipe = Recipe.from_described(values.get("recipe"), f"{path}, recipe")
    return typed({**values, "recipe": recipe}, PlanHeader, str(path))


def read_about(schema: pa.Schema, path: Path) -> dict[str, Any]:
    """The JSON values that a plan or a commit record holds beside its rows."""
    text = (schema.metadata or {}).get(b"about", b"null")
    return typed(parse_json(text, path), dict[str, Any], str(path))
