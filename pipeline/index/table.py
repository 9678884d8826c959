"""The table in `index.parquet`: read without trust, and compared with what its manifest says.

Its checksum in the manifest keeps damage and the indexes of other builds away; it says nothing of a shard
set by a stranger, who writes both files. So the size of the table is known before it is read, and no number
in it leads beyond a tar, a class or a vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.constants import QUALITY_ISSUES
from pipeline.errors import IntegrityError, first_line
from pipeline.index.manifest import DatasetManifest
from pipeline.index.pages import check_expansion

INDEX_BYTES: Final = 2**30  # of the file; the 1.3 million rows of ImageNet take 28 MB
SAMPLE_PIXEL_BYTES: Final = (
    16  # of a sample for each pixel, at most; raw and PNG take three, noise as JPEG less
)
SAMPLE_BASE_BYTES: Final = 2**16  # and these, whatever its size: headers
INDEX_CURE: Final = "pipeline.verify says what else is damaged, and --repair mends it"
TEXT_COLUMNS: Final = ("split", "group", "user", "kind", "split_lite")
"""Columns of text, which are stored as codes into a vocabulary."""
SAMPLE_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "key": pa.int64(),
    "class_id": pa.int32(),
    "split": pa.string(),
    "group": pa.string(),
    "user": pa.string(),
    "kind": pa.string(),
    "frame": pa.int32(),
    "shard": pa.int32(),
}
LOCATION_COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "offset": pa.int64(),
    "length": pa.int32(),
    "crc32": pa.uint32(),
}
"""One of each for every size, such as `offset_84`."""
BOX_TYPE: Final = pa.list_(pa.int16(), 4)


def required_columns(manifest: DatasetManifest) -> dict[str, pa.DataType]:
    """The columns that an index must have."""
    sizes = manifest.recipe.sizes
    places = {f"{name}_{size}": kind for size in sizes for name, kind in LOCATION_COLUMNS.items()}
    return {**SAMPLE_COLUMNS, **places}


def known_columns(manifest: DatasetManifest) -> dict[str, pa.DataType]:
    """All columns that this version reads; a later one may write more."""
    flags = dict.fromkeys(QUALITY_ISSUES, pa.int8())
    boxes = {f"box_{size}": BOX_TYPE for size in manifest.recipe.sizes}
    return {**required_columns(manifest), "split_lite": pa.string(), **flags, **boxes}


def read_index_table(data: bytes, path: Path, manifest: DatasetManifest) -> pa.Table:
    """Read the columns of an index that this version knows. Raises IntegrityError that says what is wrong."""
    source = pa.BufferReader(data)
    try:
        check_expansion(data)
        about = pq.read_metadata(source)
        schema = about.schema.to_arrow_schema()
        _refuse(path, _schema_problems(schema, manifest))
        with pq.ParquetFile(
            source,
            metadata=about,
            read_dictionary=[name for name in TEXT_COLUMNS if name in schema.names],
            page_checksum_verification=True,
        ) as file:
            table = file.read([name for name in schema.names if name in known_columns(manifest)])
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:  # OSError: what pyarrow calls damage
        raise IntegrityError(f"{path} cannot be read: {first_line(error)}; {INDEX_CURE}") from error
    _refuse(path, _value_problems(table, manifest))
    return table


def _refuse(path: Path, problems: Iterator[str]) -> None:
    for problem in problems:
        raise IntegrityError(f"{path} {problem}; {INDEX_CURE}")


def _schema_problems(schema: pa.Schema, manifest: DatasetManifest) -> Iterator[str]:
    known = known_columns(manifest)
    for name in required_columns(manifest):
        if name not in schema.names:
            yield f"has no column {name}"
    for field in schema:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if field.name in known and kind != known[field.name]:
            yield f"has a column {field.name} of {kind}, which must be {known[field.name]}"
    if 0 < sum(name in schema.names for name in QUALITY_ISSUES) < len(QUALITY_ISSUES):
        yield "has some columns of quality flags and not all"
    if len(set(schema.names)) < len(schema.names):
        yield "has two columns of one name"


def _value_problems(table: pa.Table, manifest: DatasetManifest) -> Iterator[str]:
    """Why the values cannot be those of a shard set: what leads beyond a tar, a class, a vocabulary."""
    if table.num_rows != manifest.samples:
        yield f"has {table.num_rows:,} rows and dataset.json says {manifest.samples:,}"
    for name in table.column_names:
        for chunk in table[name].chunks:
            yield from (f"{problem} in column {name}" for problem in _column_problems(chunk))
    if table["key"].to_numpy().min() < 0:
        yield "has a negative key"
    ids = table["class_id"].to_numpy()
    if ids[0] < 0 or ids[-1] >= len(manifest.classes) or np.any(np.diff(ids) < 0):
        yield f"is not sorted by class ids of 0 to {len(manifest.classes) - 1:,}"
    entries = table["split"].combine_chunks().value_counts().to_pylist()
    splits = {entry["values"]: entry["counts"] for entry in entries}
    if splits != {name: count for name, count in manifest.splits.items() if count}:
        yield f"has splits {splits} and dataset.json says {dict(manifest.splits)}"
    for size in manifest.recipe.sizes:
        yield from _place_problems(table, size, manifest.tar_bytes(size))


def _column_problems(column: pa.Array) -> Iterator[str]:
    parts = [column]
    if isinstance(column, pa.FixedSizeListArray):
        parts.append(column.flatten())
    if isinstance(column, pa.DictionaryArray):
        parts.append(column.dictionary)
        if len(column.dictionary.unique()) < len(column.dictionary):
            yield "has a text twice"
    if any(part.null_count for part in parts):
        yield "has a value that is not there"


def _place_problems(table: pa.Table, size: int, tars: Mapping[int, int]) -> Iterator[str]:
    """The first sample that lies in no tar."""
    shards = table["shard"].to_numpy()
    offsets, lengths = (table[f"{name}_{size}"].to_numpy() for name in ("offset", "length"))
    ends = np.zeros(max(tars, default=0) + 1, np.int64)
    ends[list(tars)] = list(tars.values())
    inside = (shards >= 0) & (shards < len(ends))
    inside &= (offsets >= 0) & (lengths > 0) & (offsets <= ends[np.where(inside, shards, 0)] - lengths)
    most = SAMPLE_BASE_BYTES + SAMPLE_PIXEL_BYTES * size**2
    if lengths.max() > most:  # readers take memory for it before they know better
        yield f"has a sample of {lengths.max():,} bytes, and an image of {size} px has at most {most:,}"
    if not inside.all():
        row = int(np.argmin(inside))
        yield (
            f"places sample {table['key'][row]} at byte {offsets[row]:,} of shard {shards[row]} of {size} px, "
            f"{lengths[row]:,} bytes long, and dataset.json has no such place"
        )
