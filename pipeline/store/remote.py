"""Samples' bytes from object stores: ranges downloaded ahead of use into a bounded local cache.

`prefetch` cuts the samples that are neither cached nor on their way into downloads, which threads take from
a queue. `read` waits for the download of its sample, if there is one, and reads from the cache.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError
from pipeline.store.cache import ShardCache
from pipeline.store.fetch import RemoteFetcher, RemotePath, RetryPolicy, StoreStats
from pipeline.store.files import ShardKey, crc32
from pipeline.store.local import ByteRange, LocalStore, OpenShard, SampleLocations, merge_ranges

SampleId: TypeAlias = "tuple[str, int]"
"""The folder of a sample's shards, and its row."""

DOWNLOAD_THREADS: Final = 16  # requests at a time: they hide the 20 to 100 ms that each one takes
REQUEST_BYTES: Final = 2**20  # more adds little to the rate and much to what a fault costs
READ_ATTEMPTS: Final = 4  # at a sample that other processes keep dropping from a shared cache


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """Where remote datasets are, and how their bytes are downloaded and cached."""

    origins: Mapping[str, RemotePath]
    """By the text of the dataset's root, which is a folder of the cache."""
    cache: Path
    cache_bytes: int
    retry: RetryPolicy


class RemoteRows:
    """The rows of a remote dataset at one size, and which of them the cache has."""

    def __init__(self, origin: RemotePath, shards: NDArray[Any]) -> None:
        self.origin = origin
        self.shards = shards
        """The shard of each row of the index."""
        self.cached = np.zeros(len(shards), np.bool_)
        """Which rows the cache was last seen to have. A hint: others may empty the cache."""


class SampleDownload:
    """Samples on their way into the cache."""

    def __init__(self, rows: RemoteRows, locations: SampleLocations) -> None:
        self.rows = rows
        self.locations = locations
        self.samples: list[SampleId] = [(locations.folder, row) for row in locations.rows.tolist()]
        self.over = threading.Event()
        self.error: BaseException | None = None
        """Why samples that are still missing did not come."""


class RangeCheck:
    """Verifies the samples of a range, and keeps the bytes that came last."""

    def __init__(self, locations: SampleLocations, span: ByteRange) -> None:
        self.data = b""
        self.bad = span.members
        """The samples that differ from the index."""
        self._locations = locations
        self._span = span

    def __call__(self, data: bytes) -> str:
        self.data = data
        view, locations = memoryview(data), self._locations
        self.bad = []
        for at in self._span.members:
            begin = locations.offsets[at] - self._span.begin
            if crc32(view[begin : begin + locations.lengths[at]]) != locations.crcs[at]:
                self.bad.append(at)
        if not self.bad:
            return ""
        return f"{len(self.bad)} of {len(self._span.members)} samples differ from the index"


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
        self._lock = threading.Lock()
        self._downloads: dict[SampleId, SampleDownload] = {}
        """Those that are not over."""
        self._damaged: dict[SampleId, str] = {}
        """Samples that are wrong on the server, each with its message."""
        self._queue: SimpleQueue[SampleDownload | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._most_threads = threads
        self._closed = False

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
        with self._lock:
            if self._closed:
                return
            absent = locations.pick(self._absent(rows, locations))
            for span in merge_ranges(absent, most=REQUEST_BYTES):
                self._queue.put(self._add_download(rows, absent.pick(span.members)))
            while len(self._threads) < self._most_threads:
                self._threads.append(threading.Thread(target=self._run_downloads, daemon=True))
                self._threads[-1].start()

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
            download = self._downloads.get((locations.folder, row))
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
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
        self._fetcher.close()
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()
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

    def _absent(self, rows: RemoteRows, locations: SampleLocations) -> list[int]:
        """One position for each row that is neither cached nor on its way."""
        unique, first = np.unique(locations.rows, return_index=True)
        return [
            at
            for row, at in zip(unique.tolist(), first.tolist(), strict=True)
            if not rows.cached[row]
            and (locations.folder, row) not in self._downloads
            and (locations.folder, row) not in self._damaged
        ]

    def _add_download(self, rows: RemoteRows, locations: SampleLocations) -> SampleDownload:
        """From now on, whoever needs these samples waits for this download."""
        download = SampleDownload(rows, locations)
        self._downloads.update(dict.fromkeys(download.samples, download))
        return download

    def _read(
        self, rows: RemoteRows, locations: SampleLocations, at: int, buffers: Sequence[memoryview]
    ) -> None:
        sample = (locations.folder, int(locations.rows[at]))
        download = self._downloads.get(sample)
        for _ in range(READ_ATTEMPTS):
            if download is not None:
                download.over.wait()
            if self._cache.read(locations, at, buffers):
                self._fetcher.count(read=1)
                return
            if sample in self._damaged:
                raise IntegrityError(self._damaged[sample])
            if download is not None and download.error is not None:
                raise download.error
            download = self._download_now(rows, locations.pick([at]))
        raise IntegrityError(
            f"{locations.describe(at)} was fetched {READ_ATTEMPTS} times and is never in the cache when "
            "it is read; give the cache more bytes, or each process a cache of its own"
        )

    def _download_now(self, rows: RemoteRows, locations: SampleLocations) -> SampleDownload:
        """Download one sample in this thread, unless another thread is doing that."""
        with self._lock:
            download = self._downloads.get((locations.folder, int(locations.rows[0])))
            if download is not None:
                return download
            download = self._add_download(rows, locations)
        self._run(download)
        return download

    def _run_downloads(self) -> None:
        while (download := self._queue.get()) is not None:
            self._run(download)

    def _run(self, download: SampleDownload) -> None:
        try:
            self._download(download.rows, download.locations)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            download.error = error
        finally:
            with self._lock:
                for sample in download.samples:
                    self._downloads.pop(sample, None)
            download.over.set()

    def _download(self, rows: RemoteRows, locations: SampleLocations) -> None:
        """Download the samples that the cache lacks: an earlier run may have left some."""
        scratch = memoryview(bytearray(max(locations.lengths)))
        absent = [
            at
            for at, length in enumerate(locations.lengths)
            if not self._cache.read(locations, at, [scratch[:length]])
        ]
        missing = locations.pick(absent)
        for span in merge_ranges(missing, most=REQUEST_BYTES):
            self._download_range(rows, missing, span)
        rows.cached[locations.rows] = True

    def _download_range(self, rows: RemoteRows, locations: SampleLocations, span: ByteRange) -> None:
        path = locations.file(span.members[0])
        check = RangeCheck(locations, span)
        source = rows.origin.at(str(locations.size), path.name)
        try:
            self._fetcher.read_range(source, span.begin, span.end, check)
        except IntegrityError as error:
            for at in check.bad:
                sample = (locations.folder, int(locations.rows[at]))
                self._damaged[sample] = f"{locations.describe(at)} is damaged where it comes from: {error}"
        self._cache.write((locations.folder, span.shard), path, span.begin, check.data)
        self._fetcher.count(fetched=len(span.members) - len(check.bad))

    def _forget_shard(self, key: ShardKey) -> None:
        """Note that the cache deleted a file."""
        folder, shard = key
        rows = self._rows.get(folder)
        if rows is not None:
            rows.cached[rows.shards == shard] = False
        self._fetcher.count(evicted=1)
