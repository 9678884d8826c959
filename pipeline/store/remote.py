"""Samples' bytes from object stores: ranges downloaded ahead of use into a bounded local cache."""

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
from pipeline.store.cache import Mirrors
from pipeline.store.fetch import Fetcher, Origin, Patience, Stats
from pipeline.store.files import Key, crc32
from pipeline.store.local import LocalStore, Region, Source, Spots, regions

Name: TypeAlias = "tuple[str, int]"
"""Of a sample: its folder and its row."""


class Place:
    """A remote dataset at one size."""

    def __init__(self, origin: Origin, shards: NDArray[Any]) -> None:
        self.origin = origin
        self.shards = shards
        """Of each row of the index."""
        self.here = np.zeros(len(shards), np.bool_)
        """Which rows the cache was last seen to have. A hint: others may empty the cache."""


class Errand:
    """Samples on their way into the cache."""

    def __init__(self, place: Place, spots: Spots) -> None:
        self.place = place
        self.spots = spots
        self.names: list[Name] = [(spots.folder, row) for row in spots.rows.tolist()]
        self.over = threading.Event()
        self.error: BaseException | None = None
        """Why what is missing did not come."""


class Check:
    """Which samples of a region are right in the bytes that came last."""

    def __init__(self, spots: Spots, region: Region) -> None:
        self.data = b""
        self.bad = region.members
        self._spots = spots
        self._region = region

    def __call__(self, data: bytes) -> str:
        self.data = data
        view, spots = memoryview(data), self._spots
        self.bad = []
        for at in self._region.members:
            begin = spots.offsets[at] - self._region.begin
            if crc32(view[begin : begin + spots.lengths[at]]) != spots.crcs[at]:
                self.bad.append(at)
        wrong = len(self.bad)
        return (
            f"{wrong} of {len(self._region.members)} samples differ from the index" if wrong else ""
        )


THREADS: Final = 16  # requests at a time: what hides the 20 to 100 ms that object stores take
REQUEST: Final = 2**20  # bytes; more adds little to the rate and much to what a fault costs
ATTEMPTS: Final = 4  # at a sample that other processes keep dropping from a shared cache


@dataclass(frozen=True, slots=True)
class Remote:
    """Where datasets are, and how their bytes are kept."""

    origins: Mapping[str, Origin]
    """By the text of the dataset's root."""
    cache: Path
    cache_bytes: int
    patience: Patience


class RemoteStore:
    """Samples of remote datasets; those of other datasets are read as local ones.

    Threads may share it. A process needs its own, on the same cache if it likes. Close it.
    """

    def __init__(self, remote: Remote, *, threads: int = THREADS) -> None:
        self._remote = remote
        self._fetcher = Fetcher(remote.patience)
        self._mirrors = Mirrors(remote.cache, remote.cache_bytes, self._forget)
        self._local = LocalStore()
        self._places: dict[str, Place | None] = {}
        self._lock = threading.Lock()
        self._under_way: dict[Name, Errand] = {}
        self._damaged: dict[Name, str] = {}
        """Samples that are wrong where they come from, and how that showed."""
        self._queue: SimpleQueue[Errand | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._most_threads = threads
        self._closed = False

    @property
    def stats(self) -> Stats:
        """Counted since the store was opened."""
        return self._fetcher.stats

    def prefetch(self, spots: Spots) -> None:
        place = self._place(spots)
        if place is None:
            self._local.prefetch(spots)
            return
        self._mirrors.announce(spots)
        with self._lock:
            if self._closed:
                return
            absent = spots.pick(self._absent(place, spots))
            for region in regions(absent, most=REQUEST):
                self._queue.put(self._begin(place, absent.pick(region.members)))
            while len(self._threads) < self._most_threads:
                self._threads.append(threading.Thread(target=self._work, daemon=True))
                self._threads[-1].start()

    def read(self, spots: Spots, at: int, buffers: Sequence[memoryview]) -> None:
        place = self._place(spots)
        if place is None:
            self._local.read(spots, at, buffers)
            return
        try:
            self._read(place, spots, at, buffers)
        finally:
            self._mirrors.done((spots.folder, spots.shards[at]))

    def sources(self, spots: Spots, begin: int, end: int) -> dict[int, Source]:
        if self._place(spots) is None:
            return self._local.sources(spots, begin, end)
        for row in spots.rows[begin:end].tolist():
            errand = self._under_way.get((spots.folder, row))
            if errand is not None:
                errand.over.wait()
        return self._mirrors.sources(spots, begin, end)

    def done(self, spots: Spots, begin: int, end: int, left: Sequence[int]) -> None:
        if self._place(spots) is None:
            return
        for at in range(begin, end):
            if at not in left:
                self._mirrors.done((spots.folder, spots.shards[at]))
        self._fetcher.count(read=end - begin - len(left))

    def close(self) -> None:
        """Give up what is under way; whoever waits for it gets Interrupted."""
        with self._lock:
            self._closed = True
            threads, self._threads = self._threads, []
        self._fetcher.close()
        for _ in threads:
            self._queue.put(None)
        for thread in threads:
            thread.join()
        self._mirrors.close()
        self._local.close()

    def _place(self, spots: Spots) -> Place | None:
        folder = spots.folder
        if folder not in self._places:
            origin = self._remote.origins.get(str(spots.dataset.root))
            place = Place(origin, spots.dataset.index["shard"]) if origin else None
            self._places.setdefault(folder, place)
        return self._places[folder]

    def _absent(self, place: Place, spots: Spots) -> list[int]:
        """One position for each row that is neither here nor on its way."""
        rows, first = np.unique(spots.rows, return_index=True)
        return [
            at
            for row, at in zip(rows.tolist(), first.tolist(), strict=True)
            if not place.here[row]
            and (spots.folder, row) not in self._under_way
            and (spots.folder, row) not in self._damaged
        ]

    def _begin(self, place: Place, spots: Spots) -> Errand:
        """From now on, whoever needs these waits for this errand."""
        errand = Errand(place, spots)
        self._under_way.update(dict.fromkeys(errand.names, errand))
        return errand

    def _read(self, place: Place, spots: Spots, at: int, buffers: Sequence[memoryview]) -> None:
        name = (spots.folder, int(spots.rows[at]))
        errand = self._under_way.get(name)
        for _ in range(ATTEMPTS):
            if errand is not None:
                errand.over.wait()
            if self._mirrors.read(spots, at, buffers):
                self._fetcher.count(read=1)
                return
            if name in self._damaged:
                raise IntegrityError(self._damaged[name])
            if errand is not None and errand.error is not None:
                raise errand.error
            errand = self._go(place, spots.pick([at]))
        raise IntegrityError(
            f"{spots.name(at)} was fetched {ATTEMPTS} times and is never in the cache when it is read; "
            "give the cache more bytes, or each process a cache of its own"
        )

    def _go(self, place: Place, spots: Spots) -> Errand:
        """Fetch one sample in this thread, unless another is just doing that."""
        with self._lock:
            errand = self._under_way.get((spots.folder, int(spots.rows[0])))
            if errand is not None:
                return errand
            errand = self._begin(place, spots)
        self._run(errand)
        return errand

    def _work(self) -> None:
        while (errand := self._queue.get()) is not None:
            self._run(errand)

    def _run(self, errand: Errand) -> None:
        try:
            self._bring(errand.place, errand.spots)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            errand.error = error
        finally:
            with self._lock:
                for name in errand.names:
                    self._under_way.pop(name, None)
            errand.over.set()

    def _bring(self, place: Place, spots: Spots) -> None:
        """What an earlier run left is not fetched again."""
        room = memoryview(bytearray(max(spots.lengths)))
        absent = [
            at
            for at, length in enumerate(spots.lengths)
            if not self._mirrors.read(spots, at, [room[:length]])
        ]
        missing = spots.pick(absent)
        for region in regions(missing, most=REQUEST):
            self._fetch(place, missing, region)
        place.here[spots.rows] = True

    def _fetch(self, place: Place, spots: Spots, region: Region) -> None:
        path = spots.file(region.members[0])
        check = Check(spots, region)
        try:
            self._fetcher.span(
                place.origin.at(str(spots.size), path.name), region.begin, region.end, check
            )
        except IntegrityError as error:
            for at in check.bad:
                name = (spots.folder, int(spots.rows[at]))
                self._damaged[name] = f"{spots.name(at)} is damaged where it comes from: {error}"
        self._mirrors.write((spots.folder, region.shard), path, region.begin, check.data)
        self._fetcher.count(fetched=len(region.members) - len(check.bad))

    def _forget(self, key: Key) -> None:
        folder, shard = key
        place = self._places.get(folder)
        if place is not None:
            place.here[place.shards == shard] = False
        self._fetcher.count(evicted=1)
