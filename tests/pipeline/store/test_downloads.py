"""Downloads that fail: each reader hears of it once, and nobody waits again for what is given up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import SourceMissing
from pipeline.shardset import ShardSet
from pipeline.store.fetch import RetryPolicy
from pipeline.store.local import locate_samples
from pipeline.store.remote import DOWNLOAD_THREADS, RemoteStore
from tests.pipeline.store.faulty_server import FaultyServer

TRIES = 2
PATIENCE = RetryPolicy(timeout=0.3, retries=TRIES - 1, pause=0.01)


def test_samples_that_were_announced_wait_once_for_a_server_that_stalls(built: Path, tmp_path: Path) -> None:
    with FaultyServer(built.parent) as server:
        shards = ShardSet.open(f"{server.url}/pets", cache=tmp_path, patience=PATIENCE)
        server.always[".tar"] = "stall"
        store = shards.open_store()
        locations = locate_samples(shards["pets"], 48, np.arange(60))
        for at in range(60):
            store.prefetch(locations.part(at, at + 1))
        for at in range(60):
            with pytest.raises(SourceMissing, match=r"2 tries: no answer in 0\.3 s; no answer in 0\.3 s"):
                store.read(locations, at, [memoryview(bytearray(locations.lengths[at]))])
        store.close()
    assert len(server.ranges()) <= DOWNLOAD_THREADS * TRIES  # not 60 x 2 x 2


def test_a_read_after_a_failure_was_raised_tries_again(built: Path, tmp_path: Path) -> None:
    with FaultyServer(built.parent) as server:
        shards = ShardSet.open(f"{server.url}/pets", cache=tmp_path, patience=PATIENCE)
        store = shards.open_store()
        assert isinstance(store, RemoteStore)
        locations = locate_samples(shards["pets"], 48, np.arange(3))
        data = [memoryview(bytearray(length)) for length in locations.lengths]
        server.always[".tar"] = "503"
        store.prefetch(locations)
        for at in range(3):
            with pytest.raises(SourceMissing, match="503"):
                store.read(locations, at, [data[at]])
        server.always.clear()
        store.read(locations, 0, [data[0]])  # in this thread
        store.prefetch(locations)
        for at in range(3):
            store.read(locations, at, [data[at]])
        store.close()
