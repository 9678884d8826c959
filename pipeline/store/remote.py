"""Samples' bytes from object stores: ranges downloaded ahead of use into a bounded local cache.

`prefetch` cuts the samples that are neither cached nor on their way into downloads (`store/downloads.py`), which
threads take from a queue. `read` waits for the download of its sample, if there is one, and reads from the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import IntegrityError
from pipeline.store.cache import ShardCache
from pipeline.store.downloads import DownloadQueue, RemoteRows
from pipeline.store.fetch import RemoteFetcher, RemotePath, RetryPolicy, StoreStats
from pipeline.store.files import ShardKey
from pipeline.store.local import LocalStore, OpenShard, SampleLocations

DOWNLOAD_THREADS: Final = 16  # requests at a time: they hide the 20 to 100 ms that each one takes
READ_ATTEMPTS: Final = 4  # at a sample that other processes keep dropping from a shared cache


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Where remote datasets are, and how their bytes are downloaded and cached."""

    origins: Mapping[str, RemotePath]
    """By the text of the dataset's root, which is a folder of the cache."""
    cache: Path
    cache_bytes: int
    retry: RetryPolicy


class RemoteStore:
    """Reads samples of remote datasets through the cache; other datasets are read as local ones.

    Threads may share it. Each process needs its own; their cache may be the same. Close it.
    """

    def __init__(self, remote: RemoteSettings, *, threads: int = DOWNLOAD_THREADS) -> None:
        self._remote = remote
        self._fetcher = RemoteFetcher(remote.retry)
        self._cache = ShardCache(remote.cache, remote.cache_bytes, self._forget_shard)
        self._local = LocalStore()
        self._rows: dict[str, RemoteRows | None] = {}
        """By folder; None for a local dataset."""
        self._downloads = DownloadQueue(self._fetcher, self._cache, threads)

    @property
    def stats(self) -> StoreStats:
        """Counted since the store was opened."""
        return self._fetcher.stats

    def prefetch(self, locations: SampleLocations) -> None:
        rows = self._remote_rows(locations)
        if rows is None:
            self._local.prefetch(locations)
            return
        self._cache.announce(locations)
        self._downloads.announce(rows, locations)

    def read(self, locations: SampleLocations, at: int, buffers: Sequence[memoryview]) -> None:
        rows = self._remote_rows(locations)
        if rows is None:
            self._local.read(locations, at, buffers)
            return
        try:
            self._read(rows, locations, at, buffers)
        finally:
            self._cache.release((locations.folder, locations.shards[at]))

    def open_shards(self, locations: SampleLocations, begin: int, end: int) -> dict[int, OpenShard]:
        if self._remote_rows(locations) is None:
            return self._local.open_shards(locations, begin, end)
        for row in locations.rows[begin:end].tolist():
            download = self._downloads.find((locations.folder, row))
            if download is not None:
                download.over.wait()
        return self._cache.open_shards(locations, begin, end)

    def release(self, locations: SampleLocations, begin: int, end: int, left: Sequence[int]) -> None:
        if self._remote_rows(locations) is None:
            return
        for at in range(begin, end):
            if at not in left:
                self._cache.release((locations.folder, locations.shards[at]))
        self._fetcher.count(read=end - begin - len(left))

    def close(self) -> None:
        """Cancel the downloads under way; whoever waits for one gets RunInterrupted."""
        self._fetcher.close()
        self._downloads.close()
        self._cache.close()
        self._local.close()

    def _remote_rows(self, locations: SampleLocations) -> RemoteRows | None:
        """The rows of this dataset and size; None if it is a local dataset."""
        folder = locations.folder
        if folder not in self._rows:
            origin = self._remote.origins.get(str(locations.dataset.root))
            rows = RemoteRows(origin, locations.dataset.index["shard"]) if origin else None
            self._rows.setdefault(folder, rows)
        return self._rows[folder]

    def _read(
        self, rows: RemoteRows, locations: SampleLocations, at: int, buffers: Sequence[memoryview]
    ) -> None:
        sample = (locations.folder, int(locations.rows[at]))
        download = self._downloads.find(sample)
        for _ in range(READ_ATTEMPTS):
            if download is not None:
                download.over.wait()
            if self._cache.read(locations, at, buffers):
                self._fetcher.count(read=1)
                return
            self._downloads.raise_failure(sample, download)
            download = self._downloads.download_now(rows, locations.pick([at]))
        raise IntegrityError(
            f"{locations.describe(at)} was fetched {READ_ATTEMPTS} times and is never in the cache when "
            "it is read; give the cache more bytes, or each process a cache of its own"
        )

    def _forget_shard(self, key: ShardKey) -> None:
        """Note that the cache deleted a file."""
        folder, shard = key
        rows = self._rows.get(folder)
        if rows is not None:
            rows.cached[rows.shards == shard] = False
        self._fetcher.count(evicted=1)
