"""Opening a URL whose server, or whose cache folder, is not what it should be."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.shardset import ShardSet
from pipeline.store import remote_index
from pipeline.store.fetch import RetryPolicy
from tests.pipeline.store.faulty_server import FaultyServer

STEADY = RetryPolicy(timeout=60, pause=0.01, retries=1)


@pytest.mark.parametrize("file", ["dataset.json", "index.parquet"])
@pytest.mark.parametrize("fault", ["endless body", "endless chunks"])
def test_a_manifest_or_an_index_without_end_is_not_read_to_its_end(
    built: Path, tmp_path: Path, file: str, fault: str
) -> None:
    with FaultyServer(built.parent) as server:
        server.always[file] = fault
        with pytest.raises(SourceMissing, match=rf"pets/{file} ignores byte ranges"):
            ShardSet.open(f"{server.url}/pets", cache=tmp_path, patience=STEADY)
        assert server.sent < 2**26  # of 256 MB


def test_an_index_may_grow_with_the_samples_and_not_further(built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "www" / "pets")
    with (copy / "index.parquet").open("r+b") as file:
        file.truncate(remote_index.INDEX_BASE_BYTES + remote_index.INDEX_ROW_BYTES * 60 + 1)
    with (
        FaultyServer(copy.parent) as server,
        pytest.raises(IntegrityError, match=r"index\.parquet has more than the 16,838,656 bytes"),
    ):
        ShardSet.open(f"{server.url}/pets", cache=tmp_path / "cache", patience=STEADY)


def test_what_a_killed_process_left_in_the_cache_goes(built: Path, tmp_path: Path) -> None:
    with FaultyServer(built.parent) as server:
        [dataset] = ShardSet.open(f"{server.url}/pets", cache=tmp_path, patience=STEADY)
        left = dataset.root / ".tmp-another-machine-1-0123abcd-index.parquet"
        left.write_bytes(b"half of an index")
        os.utime(left, (0, 0))
        ShardSet.open(f"{server.url}/pets", cache=tmp_path, patience=STEADY)
    assert not left.exists()


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_in_the_place_of_the_cached_index_is_replaced(built: Path, tmp_path: Path, kind: str) -> None:
    with FaultyServer(built.parent) as server:
        [dataset] = ShardSet.open(f"{server.url}/pets", cache=tmp_path, patience=STEADY)
        index = dataset.root / "index.parquet"
        data = index.read_bytes()
        index.unlink()
        if kind == "pipe":
            os.mkfifo(index)
        else:
            index.symlink_to(tmp_path / "nowhere")
        ShardSet.open(f"{server.url}/pets", cache=tmp_path, patience=STEADY)
        assert index.read_bytes() == data
        assert not index.is_symlink()
