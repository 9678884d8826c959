"""An index that no build can have written is refused before anything of it is believed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import IntegrityError
from pipeline.index import Dataset, DatasetManifest
from pipeline.index.table import read_index_table
from pipeline.verify.__main__ import verify

Change = Callable[[pa.Table], pa.Table]


def stored(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def with_column(name: str, column: pa.Array | Callable[[pa.Array], pa.Array]) -> Change:
    def change(table: pa.Table) -> pa.Table:
        new = column(table[name].combine_chunks()) if callable(column) else column
        return table.set_column(table.column_names.index(name), name, new)

    return change


def with_first(name: str, value: object) -> Change:
    return with_column(name, lambda old: pa.array([value, *old.to_pylist()[1:]], old.type))


def cast(name: str, kind: pa.DataType) -> Change:
    return with_column(name, lambda old: old.cast(kind))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda t: t.slice(1), r"has 59 rows and dataset\.json says 60"),
        (lambda t: t.take([*range(59), 0]), "is not sorted by class ids of 0 to 2"),
        (lambda t: t.drop_columns("shard"), "has no column shard"),
        (lambda t: t.drop_columns("crc32_48"), "has no column crc32_48"),
        (lambda t: t.rename_columns({"split": "Split"}), "has no column split"),
        (lambda t: t.append_column("shard", t["shard"]), "has two columns of one name"),
        (lambda t: t.append_column("blur_issue", pa.array([0] * 60, pa.int8())), "has some columns of quality"),
        (cast("key", pa.float64()), "has a column key of double, which must be int64"),
        (cast("class_id", pa.int64()), "has a column class_id of int64, which must be int32"),
        (cast("split", pa.binary()), "has a column split of binary, which must be string"),
        (cast("offset_24", pa.string()), "has a column offset_24 of string, which must be int64"),
        (with_column("frame", pa.nulls(60)), "has a column frame of null, which must be int32"),
        (with_column("frame", pa.nulls(60, pa.int32())), "has a value that is not there in column frame"),
        (with_first("user", None), "has a value that is not there in column user"),
        (with_first("key", -5), "has a negative key"),
        (with_first("class_id", -1), "is not sorted by class ids"),
        (with_column("class_id", pa.array([3] * 60, pa.int32())), "is not sorted by class ids of 0 to 2"),
        (with_first("split", "train"), r"has splits .*'train'"),
        (with_first("shard", -1), "places sample .* of shard -1"),
        (with_first("shard", 2**31 - 1), "places sample .* of shard 2147483647"),
        (with_first("offset_48", -512), "places sample .* at byte -512"),
        (with_first("offset_48", 2**63 - 1), "places sample"),
        (with_first("length_24", 0), "places sample"),
        (with_first("length_24", 2**31 - 1), "has a sample of 2,147,483,647 bytes"),
    ],
)  # fmt: skip
def test_a_table_that_leads_beyond_the_shards_is_refused(change: Change, problem: str, built: Path) -> None:
    manifest = DatasetManifest.read(built / "dataset.json")
    table = pq.read_table(built / "index.parquet")
    with pytest.raises(IntegrityError, match=rf"index\.parquet {problem}"):
        read_index_table(stored(change(table)), built / "index.parquet", manifest)


def test_a_sample_that_takes_more_memory_than_any_image_is_refused(built: Path) -> None:
    manifest = DatasetManifest.read(built / "dataset.json")
    vast = {n: tuple(replace(file, bytes=2**40) for file in files) for n, files in manifest.shards.items()}
    table = with_first("length_48", 102_401)(pq.read_table(built / "index.parquet"))
    with pytest.raises(
        IntegrityError, match="has a sample of 102,401 bytes, and an image of 48 px has at most"
    ):
        read_index_table(stored(table), built / "index.parquet", replace(manifest, shards=vast))


def test_a_table_with_further_columns_is_read_without_them(built: Path) -> None:
    manifest = DatasetManifest.read(built / "dataset.json")
    whole = (built / "index.parquet").read_bytes()
    more = pq.read_table(built / "index.parquet").append_column("later", pa.array([{"a": 1}] * 60))
    path = built / "index.parquet"
    assert read_index_table(stored(more), path, manifest).equals(read_index_table(whole, path, manifest))


def test_every_changed_byte_of_a_footer_is_an_integrity_error_or_harmless(built: Path) -> None:
    manifest, whole = DatasetManifest.read(built / "dataset.json"), (built / "index.parquet").read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    refused = 0
    for place in range(len(whole) - footer, len(whole), 5):
        data = bytearray(whole)
        data[place] ^= 1 << place % 8
        try:
            read_index_table(bytes(data), built / "index.parquet", manifest)
        except IntegrityError:
            refused += 1
    assert refused > footer // 20


def test_a_wrong_table_under_a_right_checksum_is_named_at_opening_and_by_verify(
    built: Path, tmp_path: Path
) -> None:
    data = stored(pq.read_table(built / "index.parquet").drop_columns("frame"))
    (tmp_path / "index.parquet").write_bytes(data)
    manifest = DatasetManifest.read(built / "dataset.json")
    forged = replace(manifest, index_sha256=hashlib.sha256(data).hexdigest())
    (tmp_path / "dataset.json").write_text(forged.text())
    with pytest.raises(IntegrityError, match="has no column frame"):
        Dataset.open(tmp_path)
    assert any("has no column frame" in problem.what for problem in verify(tmp_path).problems)
