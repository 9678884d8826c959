"""The reading thread: plans become chunks, in order, a bounded number ahead of the consumer.

sampler[number] ─► EpisodeStart, PendingChunk ... ─► EpisodeStart, PendingChunk ... ─► StreamEnd

Threads hand over through queues and locks written in C alone: those of `threading`, written in Python,
cost a tenth more of a CPU with raw pixels.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Final, TypeAlias, TypeVar

import torch

from pipeline.decoders.base import ChunkDecoder, DecodeJob
from pipeline.episodes import EpisodePlan, Sampler, choose_h, plan_problem
from pipeline.errors import UsageError
from pipeline.loader.chunks import RESIDENT_IMAGES, ChunkRange, EpisodeChunks, plan_chunks
from pipeline.loader.faults import FaultPolicy
from pipeline.loader.memory import PixelMemory
from pipeline.loader.stats import LoaderMetrics
from pipeline.shardset import ShardSet
from pipeline.store.local import SampleLocations, SampleStore, locate_samples

WAKE_SECONDS: Final = 0.2  # after which a waiting thread looks whether it should stop
JOIN_SECONDS: Final = 10.0  # that closing waits for the reading thread
BURST_CHUNKS: Final = 64  # that are planned at a time, some ten episodes
BURST_SECONDS: Final = 0.01  # that planning goes on for: decoders have as much to do meanwhile

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True, eq=False)
class EpisodeStart:
    """An episode begins: its plan, and the chunks that follow."""

    plan: EpisodePlan
    chunks: EpisodeChunks


@dataclass(frozen=True, slots=True, eq=False)
class PendingChunk:
    """A chunk that is being decoded."""

    where: ChunkRange
    job: DecodeJob
    out: torch.Tensor
    """Where its pixels will be, on the device."""
    side: torch.Tensor | None
    """The memory of the whole side, of which `out` is a part; None for a side beyond RESIDENT_IMAGES."""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The sampler has no further episode, or an error ended the stream."""

    error: BaseException | None = None


StreamItem: TypeAlias = EpisodeStart | PendingChunk | StreamEnd


@dataclass(frozen=True, slots=True, eq=False)
class _PlannedChunk:
    """A chunk of which nothing is decoded yet; its bytes may be fetched already."""

    where: ChunkRange
    locations: SampleLocations
    side_images: int


_PlannedItem: TypeAlias = EpisodeStart | _PlannedChunk | StreamEnd


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamOptions:
    """How a stream reads; see `EpisodeLoader`."""

    image_size: int
    h: int
    chunk: int
    ahead: int
    prefetch: int
    """Chunks whose bytes are requested before they are decoded."""
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StreamParts:
    """What a loader's streams and episodes work with."""

    shards: ShardSet
    sampler: Sampler
    store: SampleStore
    decoder: ChunkDecoder
    memory: PixelMemory
    policy: FaultPolicy
    metrics: LoaderMetrics


class EpisodeStream:
    """The chunks of every `step`-th episode from `first` on, read by a thread of its own."""

    def __init__(self, parts: StreamParts, options: StreamOptions, first: int, step: int) -> None:
        self.image_size = options.image_size
        self.parts = parts
        self._options = options
        self._numbers = range(first, 2**63, step)
        self._items: SimpleQueue[StreamItem] = SimpleQueue()
        self._free_slots: SimpleQueue[None] = SimpleQueue()  # one for each chunk that may be begun
        for _ in range(options.ahead):
            self._free_slots.put(None)
        self._stopped = threading.Event()
        self._sides: dict[str, torch.Tensor] = {}  # of the episode whose chunks are being submitted
        self._thread = threading.Thread(target=self._run, name="episodes", daemon=True)
        self._thread.start()

    def next(self) -> StreamItem:
        """Wait for the next item; a chunk may still be in decoding."""
        while not self._stopped.is_set():
            try:
                item = self._items.get(timeout=WAKE_SECONDS)
            except Empty:
                continue
            if isinstance(item, PendingChunk):
                self._free_slots.put(None)
            return item
        raise UsageError("the loader is closed: nothing further arrives; open another one")

    def stop(self) -> None:
        """Ask the thread to end. Jobs that the decoder has stay there."""
        self._stopped.set()
        self._free_slots.put(None)  # wakes the thread if it waits for a slot

    def join(self) -> None:
        """Wait for the thread to end; a decoder that takes no more jobs may delay it."""
        if self._thread is not threading.current_thread():
            self._thread.join(JOIN_SECONDS)

    def _run(self) -> None:
        try:
            for item in self._prefetched(in_bursts(self._planned_items())):
                self._send(item)
        except _StopRequested:
            pass
        except BaseException as error:  # noqa: BLE001 - the consumer's thread raises it
            self._items.put(StreamEnd(error))

    def _prefetched(self, items: Iterator[_PlannedItem]) -> Iterator[_PlannedItem]:
        """The same items, each after the bytes of those that follow soon have been requested."""
        window: deque[_PlannedItem] = deque()
        for item in items:
            window.append(item)
            if isinstance(item, _PlannedChunk):
                self.parts.store.prefetch(item.locations)
            if len(window) > self._options.prefetch:
                yield window.popleft()
        yield from window

    def _planned_items(self) -> Iterator[_PlannedItem]:
        """The sampler's episodes and their chunks, and a StreamEnd after the last or a wrong one."""
        try:
            for number in self._numbers:
                try:
                    plan = self.parts.sampler[number]
                except IndexError:
                    break
                yield from self._episode_items(plan)
            yield StreamEnd()
        except Exception as error:  # noqa: BLE001 - raised once everything before it is consumed
            yield StreamEnd(error)

    def _episode_items(self, plan: EpisodePlan) -> Iterator[_PlannedItem]:
        size = self._options.image_size
        dataset = self.parts.shards[plan.dataset]
        if problem := plan_problem(plan, len(dataset.index)):
            raise UsageError(f"{plan}: {problem}")
        h = choose_h(plan, self._options.h, self._options.seed)
        chunks = plan_chunks(plan, dataset.index, size, h, self._options.chunk)
        yield EpisodeStart(plan, chunks)
        support = locate_samples(dataset, size, plan.support.rows[chunks.support])
        query = locate_samples(dataset, size, plan.query.rows[chunks.query])
        for where in chunks:
            side = query if where.role == "query" else support
            yield _PlannedChunk(where, side.part(where.begin, where.end), len(side))

    def _send(self, item: _PlannedItem) -> None:
        """Submit a chunk to the decoder, once there is a free slot, and pass it on."""
        if not isinstance(item, _PlannedChunk):
            self._sides.clear()
            self._items.put(item)
            return
        self._free_slots.get()
        if self._stopped.is_set():
            raise _StopRequested
        side, where = self._side_memory(item), item.where
        if side is None:
            out = self.parts.memory.allocate(len(where), self._options.image_size)
        else:
            out = side[where.begin : where.end]
        self._items.put(PendingChunk(where, self._submit(item.locations, out), out, side))

    def _side_memory(self, item: _PlannedChunk) -> torch.Tensor | None:
        if item.side_images > RESIDENT_IMAGES:
            return None
        name = "query" if item.where.role == "query" else "support"
        if name not in self._sides:
            size = self._options.image_size
            self._sides[name] = self.parts.memory.allocate(item.side_images, size)
        return self._sides[name]

    def _submit(self, locations: SampleLocations, out: torch.Tensor) -> DecodeJob:
        decoder = self.parts.decoder
        direct = decoder.wants_device(locations.encoding)
        job = self.parts.memory.new_job(locations, out, direct=direct)
        decoder.submit(job)
        return job

    def decode(self, locations: SampleLocations, out: torch.Tensor) -> DecodeJob:
        """Decode some more samples, outside the order, and wait for them."""
        job = self._submit(locations, out)
        self.wait(job)
        return job

    def wait(self, job: DecodeJob) -> None:
        """Wait until the job is done; a decoder that is closed finishes its jobs too."""
        while not job.wait(WAKE_SECONDS):
            if self._stopped.is_set() and job.wait(JOIN_SECONDS):
                return


def in_bursts(items: Iterator[ItemT]) -> Iterator[ItemT]:
    """The same items, produced many at a time, so that planning finds its code and data in the CPU's caches.

    The first item is not held back for others, and slow items not for many others.
    """
    burst: list[ItemT] = []
    until = 0.0
    for item in items:
        burst.append(item)
        if len(burst) == BURST_CHUNKS or perf_counter() >= until:
            yield from burst
            burst.clear()
            until = perf_counter() + BURST_SECONDS
    yield from burst


class _StopRequested(Exception):
    """The reading thread has been asked to end."""
