"""Our tars under right checksums: verified, and their pictures read and decoded."""

from __future__ import annotations

import zlib
from dataclasses import replace
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.targets.index_parquet import stored_table
from tests.fuzz.tiny_set import (
    ENCODINGS,
    changed_set,
    look_at_pictures,
    whole_manifest,
    whole_set,
    write_index,
)


def seeds() -> list[bytes]:
    return [b"%d:" % size + (whole_set() / str(size) / "shard-000000.tar").read_bytes() for size in ENCODINGS]


def check(data: bytes) -> None:
    """The first bytes say which size's shard the others replace; its samples' checksums follow its bytes."""
    digits, _, tar = data.partition(b":")
    size = int(digits) if digits in (b"8", b"12") else 16
    table = pq.read_table(whole_set() / "index.parquet")
    places = (
        table[name].to_pylist() for name in ("shard", f"offset_{size}", f"length_{size}", f"crc32_{size}")
    )
    sums = [
        zlib.crc32(tar[offset : offset + length]) if shard == 0 else crc32
        for shard, offset, length, crc32 in zip(*places, strict=True)
    ]
    name = f"crc32_{size}"
    table = table.set_column(table.column_names.index(name), name, pa.array(sums, pa.uint32()))
    root, files = changed_set("shard_tar"), whole_manifest().shards
    first = replace(files[size][0], bytes=max(len(tar), files[size][0].bytes), sha256=sha256(tar).hexdigest())
    for other in ENCODINGS:
        path = f"{other}/shard-000000.tar"
        whole = (whole_set() / path).read_bytes()
        (root / path).write_bytes(tar if other == size else whole)
    write_index(root, stored_table(table), shards={**files, size: (first, *files[size][1:])})
    look_at_pictures(root)
