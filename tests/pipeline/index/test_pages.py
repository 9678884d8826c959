"""A parquet file that unpacks to far more than it takes is found before it is unpacked."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import IntegrityError
from pipeline.index import DatasetManifest
from pipeline.index.pages import FREE_ROWS, check_expansion
from pipeline.index.table import read_index_table


def stored(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", **options)
    return sink.getvalue()


def varint(number: int) -> bytes:
    """A number as Thrift writes it."""
    number, text = 2 * number, b""
    while number > 127:
        number, text = number >> 7, text + bytes([number & 127 | 128])
    return text + bytes([number])


def long_texts() -> bytes:
    """An index's worth of rows whose texts take 300 MB, in 12 kB."""
    return stored(pa.table({"group": [f"{number}{'x' * 5_000_000}" for number in range(60)]}))


def with_small_footer(data: bytes) -> bytes:
    """The same file, whose footer says that it unpacks to a byte."""
    about = pq.read_metadata(pa.BufferReader(data)).row_group(0)
    length = int.from_bytes(data[-8:-4], "little") + 8
    footer = data[-length:]
    for size in {about.total_byte_size, about.column(0).total_uncompressed_size}:
        number = varint(size)
        assert number in footer
        footer = footer.replace(number, b"\x82" + b"\x80" * (len(number) - 2) + b"\x00")
    return data[:-length] + footer


@pytest.mark.parametrize("pages", ["1.0", "2.0"])
def test_what_a_build_writes_is_let_through(built: Path, pages: str) -> None:
    for path in (built / "index.parquet", *(built / ".build").glob("*.parquet")):
        check_expansion(path.read_bytes())
    plain = stored(pa.table({"a": range(100_000), "b": ["c"] * 100_000}), data_page_version=pages)
    check_expansion(plain)


def test_texts_that_unpack_to_far_more_than_they_take_are_refused_whatever_the_footer_says(
    built: Path,
) -> None:
    data = long_texts()
    assert len(data) < 100_000
    for changed in (data, with_small_footer(data)):
        with pytest.raises(ValueError, match=r"bytes unpack to 300,000,\d\d\d"):
            check_expansion(changed)
    with pytest.raises(
        IntegrityError, match=r"index\.parquet cannot be read: its .* bytes unpack to 300,000"
    ):
        read_index_table(data, built / "index.parquet", DatasetManifest.read(built / "dataset.json"))


def test_more_rows_than_bytes_are_refused() -> None:
    data = stored(pa.table({"key": pa.array([7]).take(pa.array([0] * (FREE_ROWS + 1)))}))
    with pytest.raises(ValueError, match="to 1,048,577 rows, more than one for each byte"):
        check_expansion(data)


def test_encodings_that_no_build_uses_are_refused() -> None:
    table = pa.table({"group": ["x" * 1000 + str(number) for number in range(1000)]})
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        data = stored(table, use_dictionary=False, column_encoding=encoding)
        with pytest.raises(ValueError, match="encoded as no build writes it"):
            check_expansion(data)


def test_every_cut_and_every_changed_byte_of_a_footer_is_an_error_or_harmless(built: Path) -> None:
    whole = (built / "index.parquet").read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    changed = [whole[:length] for length in range(0, len(whole), 37)]
    changed += (
        whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        for place in range(len(whole) - footer, len(whole), 3)
    )
    refused = 0
    for data in changed:
        try:
            check_expansion(data)
        except ValueError:
            refused += 1
    assert refused > len(changed) // 4
