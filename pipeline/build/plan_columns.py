"""The columns of a plan: items become a table and come back from it, whatever bytes their names have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from pipeline.errors import IntegrityError, first_line
from pipeline.records import Item, printable_text

BYTES_MARK: Final = "\0"  # begins a path that the plan holds as bytes; no real path has it
TEXT_TYPE: Final = pa.dictionary(pa.int32(), pa.string())  # few different values, many rows
PLAN_SCHEMA: Final = pa.schema(
    [
        ("name", pa.string()),
        ("class_id", pa.int32()),
        ("split", TEXT_TYPE),
        ("file", TEXT_TYPE),
        ("offset", pa.int64()),
        ("length", pa.int64()),
        ("packing", TEXT_TYPE),
        ("crop", pa.list_(pa.int32())),
        ("invert", pa.bool_()),
        ("group", TEXT_TYPE),
        ("user", TEXT_TYPE),
        ("kind", TEXT_TYPE),
        ("frame", pa.int32()),
        ("quality", pa.list_(pa.int8())),
        ("box", pa.list_(pa.int32())),
        ("split_lite", TEXT_TYPE),
    ]
)


def item_columns(items: Sequence[Item]) -> pa.RecordBatch:
    """The items as columns. Raises IntegrityError for a value that its column cannot hold."""
    columns = zip(*items, strict=True)
    arrays = [_column_array(column, field) for column, field in zip(columns, PLAN_SCHEMA, strict=True)]
    return pa.record_batch(arrays, schema=PLAN_SCHEMA)


def items_from(table: pa.Table) -> Iterator[Item]:
    """The items of a table of these columns."""
    columns = [column.to_pylist() for column in table.columns]
    for column, field in zip(columns, table.schema, strict=True):
        if pa.types.is_list(field.type):
            column[:] = [entry if entry is None else tuple(entry) for entry in column]
        elif field.name == "file":
            column[:] = map(path_of, column)
    return (Item(*row) for row in zip(*columns, strict=True))


def _column_array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except UnicodeEncodeError:
        as_text = stored_path if field.name == "file" else printable_text
        return pa.array(map(as_text, values), field.type)
    except (pa.ArrowException, OverflowError) as error:
        raise IntegrityError(
            f"the source lists an image whose {field.name!r} is out of range ({first_line(error)}); download its "
            "lists again"
        ) from error


def stored_path(file: str) -> str:
    """A path as the plan holds it: one that is no UTF-8 as its bytes in hexadecimal digits."""
    try:
        file.encode()
    except UnicodeEncodeError:
        return BYTES_MARK + file.encode("utf-8", "surrogateescape").hex()
    return file


def path_of(stored: str) -> str:
    """The inverse of `stored_path`."""
    if not stored.startswith(BYTES_MARK):
        return stored
    return bytes.fromhex(stored.removeprefix(BYTES_MARK)).decode("utf-8", "surrogateescape")
