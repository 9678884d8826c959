"""Sample index: `index.parquet` under a right checksum, opened, shown and verified."""

from __future__ import annotations

import io
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.mutations import WIDE_NUMBERS, mutate_bytes
from tests.fuzz.tiny_set import changed_set, look_at_set, whole_set, write_index

PLAIN_SHARE = 0.5  # of inputs, whose bytes are changed and not their columns
KINDS = (
    pa.int8(), pa.int32(), pa.int64(), pa.uint32(), pa.uint64(), pa.float64(), pa.bool_(), pa.string(),
    pa.large_string(), pa.binary(), pa.date32(), pa.decimal128(38, 2), pa.list_(pa.int32()), pa.null(),
    pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.int64()), pa.struct([("a", pa.int32())]),
    pa.list_(pa.int16(), 4),
)  # fmt: skip


def seeds() -> list[bytes]:
    table = pq.read_table(whole_set() / "index.parquet")
    boxed = table.append_column("box_8", pa.array([[1, 2, 3, 4]] * len(table), pa.list_(pa.int16(), 4)))
    flagged = boxed.append_column("blur_issue", pa.array([-1] * len(table), pa.int8()))
    return [(whole_set() / "index.parquet").read_bytes(), stored_table(flagged)]


def mutate(data: bytes, generator: random.Random) -> bytes:
    if generator.random() < PLAIN_SHARE:
        return mutate_bytes(data, generator)
    try:
        table = pq.read_table(pa.BufferReader(data))
        if table.num_rows > 1000:
            return mutate_bytes(data, generator)
        for _ in range(generator.randint(1, 2)):
            table = change_table(table, generator)
        return stored_table(table)
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError):
        return mutate_bytes(data, generator)


def check(data: bytes) -> None:
    root = changed_set("index_parquet")
    write_index(root, data)
    look_at_set(root)


def stored_table(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def change_table(table: pa.Table, generator: random.Random) -> pa.Table:
    """The table with a column gone, renamed, doubled, of other values or of another kind, or with other rows."""
    place = generator.randrange(table.num_columns)
    name, column = table.column_names[place], table.column(place)
    change = generator.choice(("remove", "rename", "double", "rows", "values", "values", "kind", "kind"))
    if change == "remove":
        return table.remove_column(place)
    if change == "rename":
        return table.rename_columns({name: generator.choice(("", "extra", *table.column_names))})
    if change == "double":
        return table.append_column(name, column)
    if change == "rows":
        count = generator.choice((0, 1, len(table), 200))
        return table.take([generator.randrange(len(table)) for _ in range(count)])
    other = _other_kind(column, generator) if change == "kind" else _other_values(column, generator)
    return table.set_column(place, name, other)


def _other_kind(column: pa.ChunkedArray, generator: random.Random) -> pa.ChunkedArray | pa.Array:
    kind = generator.choice(KINDS)
    try:
        return column.cast(kind)
    except (pa.ArrowException, ValueError):
        return pa.nulls(len(column), kind)


def _other_values(column: pa.ChunkedArray, generator: random.Random) -> pa.Array:
    values = column.to_pylist()
    place = generator.randrange(len(values))
    value = values[place]
    if isinstance(value, int):
        value = generator.choice(
            (None, -1, value + 1, -(2**31), -(2**63), *WIDE_NUMBERS, int(np.int32(value ^ 64)))
        )
    elif isinstance(value, str):
        value = generator.choice((None, "", "train", "x" * 10_000, "a\nb\x1b[2J", "[/red]", "clean"))
    else:
        value = None
    values[place : place + generator.choice((1, 1, len(values)))] = [value]
    return pa.array((values + [value] * len(column))[: len(column)], column.type)
