"""DALI index of a shard: `.idx` under a right checksum, verified."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from pipeline.verify.__main__ import verify
from tests.fuzz.tiny_set import changed_set, whole_manifest, whole_set, write_manifest


def seeds() -> list[bytes]:
    return [(whole_set() / "16" / "shard-000000.idx").read_bytes()]


def check(data: bytes) -> None:
    """It fits its tar, or is named."""
    root, shards = changed_set("shard_idx"), whole_manifest().shards
    first = replace(shards[16][0], index_sha256=sha256(data).hexdigest())
    write_manifest(root, shards={**shards, 16: (first, *shards[16][1:])})
    (root / "16" / "shard-000000.idx").write_bytes(data)
    report = verify(root, workers=1)
    assert report.ok == (data == seeds()[0])
