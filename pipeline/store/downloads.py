"""Downloads: samples on their way from a server into the cache, and what is known of those that failed."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError
from pipeline.store.cache import ShardCache
from pipeline.store.fetch import RemoteFetcher, RemotePath
from pipeline.store.files import crc32
from pipeline.store.local import ByteRange, SampleLocations, merge_ranges

SampleId: TypeAlias = "tuple[str, int]"
"""The folder of a sample's shards, and its row."""

REQUEST_BYTES: Final = 2**20  # more adds little to the rate and much to what a fault costs


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

    def __init__(self, rows: RemoteRows, locations: SampleLocations, outages: int) -> None:
        self.rows = rows
        self.locations = locations
        self.samples: list[SampleId] = [(locations.folder, row) for row in locations.rows.tolist()]
        self.outages = outages
        """The number of the server's outages when these samples were first wanted."""
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


class DownloadQueue:
    """Downloads samples into the cache, in threads; no sample twice at a time."""

    def __init__(self, fetcher: RemoteFetcher, cache: ShardCache, threads: int) -> None:
        self._fetcher = fetcher
        self._cache = cache
        self._most_threads = threads
        self._lock = threading.Lock()
        self._downloads: dict[SampleId, SampleDownload] = {}
        """Those under way, and those that failed until a reader has heard of it."""
        self._damaged: dict[SampleId, str] = {}
        """Samples that are wrong on the server, each with its message."""
        self._queue: SimpleQueue[SampleDownload | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closed = False

    def announce(self, rows: RemoteRows, locations: SampleLocations) -> None:
        """Download soon what is neither cached nor on its way."""
        with self._lock:
            if self._closed:
                return
            absent = locations.pick(self._absent(rows, locations))
            for span in merge_ranges(absent, most=REQUEST_BYTES):
                self._queue.put(self._add(rows, absent.pick(span.members)))
            while len(self._threads) < self._most_threads:
                self._threads.append(threading.Thread(target=self._run_queue, daemon=True))
                self._threads[-1].start()

    def find(self, sample: SampleId) -> SampleDownload | None:
        """The download of a sample: it is under way, or failed and no reader has heard of it."""
        return self._downloads.get(sample)

    def download_now(self, rows: RemoteRows, locations: SampleLocations) -> SampleDownload:
        """Download one sample in this thread, unless another thread is doing that."""
        with self._lock:
            download = self._downloads.get((locations.folder, int(locations.rows[0])))
            if download is not None:
                return download
            download = self._add(rows, locations)
        self._run(download)
        return download

    def raise_failure(self, sample: SampleId, download: SampleDownload | None) -> None:
        """Raise why a sample is not in the cache, if its download failed; the next read may try again."""
        if sample in self._damaged:
            raise IntegrityError(self._damaged[sample])
        if download is None or download.error is None:
            return
        with self._lock:
            if self._downloads.get(sample) is download:
                del self._downloads[sample]
        raise download.error

    def close(self) -> None:
        """Wait for the threads to end; the fetcher has to be closed before."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()

    def _absent(self, rows: RemoteRows, locations: SampleLocations) -> list[int]:
        """One position for each row that is neither cached nor on its way."""
        unique, first = np.unique(locations.rows, return_index=True)
        return [
            at
            for row, at in zip(unique.tolist(), first.tolist(), strict=True)
            if not rows.cached[row] and self._may_come((locations.folder, row))
        ]

    def _may_come(self, sample: SampleId) -> bool:
        """Whether a download of this sample makes sense: none is under way, and the server has it."""
        download = self._downloads.get(sample)
        under_way = download is not None and not download.over.is_set()
        return not under_way and sample not in self._damaged

    def _add(self, rows: RemoteRows, locations: SampleLocations) -> SampleDownload:
        """From now on, whoever needs these samples waits for this download."""
        download = SampleDownload(rows, locations, self._fetcher.outages(rows.origin))
        self._downloads.update(dict.fromkeys(download.samples, download))
        return download

    def _run_queue(self) -> None:
        while (download := self._queue.get()) is not None:
            self._run(download)

    def _run(self, download: SampleDownload) -> None:
        try:
            self._download(download)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            download.error = error
        else:
            with self._lock:
                for sample in download.samples:
                    self._downloads.pop(sample, None)
        finally:
            download.over.set()

    def _download(self, download: SampleDownload) -> None:
        """Download the samples that the cache lacks: an earlier run may have left some."""
        locations = download.locations
        scratch = memoryview(bytearray(max(locations.lengths)))
        absent = [
            at
            for at, length in enumerate(locations.lengths)
            if not self._cache.read(locations, at, [scratch[:length]])
        ]
        missing = locations.pick(absent)
        for span in merge_ranges(missing, most=REQUEST_BYTES):
            self._download_range(download, missing, span)
        download.rows.cached[locations.rows] = True

    def _download_range(self, download: SampleDownload, locations: SampleLocations, span: ByteRange) -> None:
        path = locations.file(span.members[0])
        check = RangeCheck(locations, span)
        source = download.rows.origin.at(str(locations.size), path.name)
        try:
            self._fetcher.read_range(source, span.begin, span.end, check, download.outages)
        except IntegrityError as error:
            for at in check.bad:
                sample = (locations.folder, int(locations.rows[at]))
                self._damaged[sample] = f"{locations.describe(at)} is damaged where it comes from: {error}"
        self._cache.write((locations.folder, span.shard), path, span.begin, check.data)
        self._fetcher.count(fetched=len(span.members) - len(check.bad))
