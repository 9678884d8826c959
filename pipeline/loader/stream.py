"""The reading thread: plans become chunks, in order, a bounded number ahead of who consumes them.

sampler[number] ─► Opening, then Pending ... ─► Opening, Pending ... ─► End, or the error that ended it

Threads hand over through queues and locks of C alone: with those of `threading`, which are Python, raw
pixels take a tenth more of a CPU.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Final, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.decoders.base import Decoder, Job
from pipeline.episodes import EpisodePlan, Sampler, choose_h
from pipeline.errors import UsageError
from pipeline.loader.chunks import Cut, Cuts, cut
from pipeline.loader.memory import Target
from pipeline.shardset import ShardSet
from pipeline.store.local import Spots, Store, spots_of

RESIDENT: Final = 2048  # images; a side up to this size is one tensor, a larger one comes in pieces
TICK: Final = 0.2  # seconds after which a waiting thread looks whether it should stop
MOST_THREAD_SECONDS: Final = 10.0  # that closing waits for the reading thread
BURST: Final = 64  # chunks that are planned at a time, some ten episodes
BURST_SECONDS: Final = 0.01  # that planning goes on for: decoders have as much to do meanwhile

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Opening:
    """An episode begins."""

    plan: EpisodePlan
    cuts: Cuts


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A chunk on its way."""

    cut: Cut
    job: Job
    room: torch.Tensor
    """Where its pixels will be."""
    side: torch.Tensor | None
    """The memory of its whole side, which `room` is a part of; None for a side beyond RESIDENT."""


@dataclass(frozen=True, slots=True)
class End:
    """The sampler has no further episode, or there is an error."""

    error: BaseException | None = None


Arrival: TypeAlias = Opening | Pending | End


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """A chunk that has been planned: its bytes may already be fetched, nothing is decoded yet."""

    cut: Cut
    spots: Spots
    side_images: int


_Planned: TypeAlias = Opening | _Wanted | End


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How a stream reads; see `EpisodeLoader`."""

    image_size: int
    h: int
    chunk: int
    ahead: int
    fetch_ahead: int
    """Chunks whose bytes are asked for before they are decoded."""
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a stream works with."""

    shards: ShardSet
    sampler: Sampler
    store: Store
    decoder: Decoder
    target: Target


class Stream:
    """Everything that arrives from episode `first` on, every `step`-th."""

    def __init__(self, parts: Parts, options: Options, first: int, step: int) -> None:
        self.image_size = options.image_size
        self._parts = parts
        self._options = options
        self._numbers = range(first, 2**63, step)
        self._arrivals: SimpleQueue[Arrival] = SimpleQueue()
        self._vacancies: SimpleQueue[None] = SimpleQueue()  # one for each chunk that may be begun
        for _ in range(options.ahead):
            self._vacancies.put(None)
        self._stopped = threading.Event()
        self._sides: dict[str, torch.Tensor] = {}  # of the episode whose chunks are being sent
        self._thread = threading.Thread(target=self._run, name="episodes", daemon=True)
        self._thread.start()

    def next(self) -> Arrival:
        """The next arrival, whenever it comes."""
        while not self._stopped.is_set():
            try:
                arrival = self._arrivals.get(timeout=TICK)
            except Empty:
                continue
            if isinstance(arrival, Pending):
                self._vacancies.put(None)
            return arrival
        raise UsageError("the loader is closed: nothing further arrives; open another one")

    def stop(self) -> None:
        """Ask the thread to end. Jobs that are with the decoder stay there."""
        self._stopped.set()
        self._vacancies.put(None)  # wakes the thread if it waits for room

    def join(self) -> None:
        """Return when the thread has ended, which a decoder that takes no more jobs may delay."""
        if self._thread is not threading.current_thread():
            self._thread.join(MOST_THREAD_SECONDS)

    def _run(self) -> None:
        try:
            for wanted in self._asked_for(in_bursts(self._wanted())):
                self._send(wanted)
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - the consumer's thread raises it
            self._arrivals.put(End(error))

    def _asked_for(self, wanted: Iterator[_Planned]) -> Iterator[_Planned]:
        """The same, once the bytes of those that follow soon have been asked for."""
        window: deque[_Planned] = deque()
        for item in wanted:
            window.append(item)
            if isinstance(item, _Wanted):
                self._parts.store.prefetch(item.spots)
            if len(window) > self._options.fetch_ahead:
                yield window.popleft()
        yield from window

    def _wanted(self) -> Iterator[_Planned]:
        """The plans' chunks, and an End if the sampler has no more plans or one of them is not sound."""
        try:
            for number in self._numbers:
                try:
                    plan = self._parts.sampler[number]
                except IndexError:
                    break
                yield from self._chunks(plan)
            yield End()
        except Exception as error:  # noqa: BLE001 - raised once all before it has been consumed
            yield End(error)

    def _chunks(self, plan: EpisodePlan) -> Iterator[_Planned]:
        size = self._options.image_size
        dataset = self._parts.shards[plan.dataset]
        _check(plan, len(dataset.index))
        h = choose_h(plan, self._options.h, self._options.seed)
        cuts = cut(plan, dataset.index, size, h, self._options.chunk)
        yield Opening(plan, cuts)
        support = spots_of(dataset, size, plan.support.rows[cuts.support])
        query = spots_of(dataset, size, plan.query.rows[cuts.query])
        for piece in cuts:
            spots = query if piece.role == "query" else support
            yield _Wanted(piece, spots.part(piece.begin, piece.end), len(spots))

    def _send(self, wanted: _Planned) -> None:
        """Hand one chunk to the decoder, once there is room ahead."""
        if not isinstance(wanted, _Wanted):
            self._sides.clear()
            self._arrivals.put(wanted)
            return
        self._vacancies.get()
        if self._stopped.is_set():
            raise _Stopped
        side = self._side(wanted)
        if side is None:
            room = self._parts.target.room(len(wanted.cut), self._options.image_size)
        else:
            room = side[wanted.cut.begin : wanted.cut.end]
        self._arrivals.put(Pending(wanted.cut, self._submit(wanted.spots, room), room, side))

    def _side(self, wanted: _Wanted) -> torch.Tensor | None:
        if wanted.side_images > RESIDENT:
            return None
        name = "query" if wanted.cut.role == "query" else "support"
        if name not in self._sides:
            size = self._options.image_size
            self._sides[name] = self._parts.target.room(wanted.side_images, size)
        return self._sides[name]

    def _submit(self, spots: Spots, room: torch.Tensor) -> Job:
        decoder, target = self._parts.decoder, self._parts.target
        job = target.job(spots, room, direct=decoder.wants_device(spots.encoding))
        decoder.submit(job)
        return job

    def decode(self, spots: Spots, room: torch.Tensor) -> Job:
        """One more chunk, outside the order; returns when it is done."""
        job = self._submit(spots, room)
        self.wait(job)
        return job

    def wait(self, job: Job) -> None:
        """Return when the job is done. A decoder that is closed finishes its jobs, too."""
        while not job.wait(TICK):
            if self._stopped.is_set() and job.wait(MOST_THREAD_SECONDS):
                return


def in_bursts(items: Iterator[T]) -> Iterator[T]:
    """The same, made many at a time: what goes on running finds its code and data in the caches.

    The first is not kept waiting for others, nor is what takes long for much else.
    """
    burst: list[T] = []
    until = 0.0
    for item in items:
        burst.append(item)
        if len(burst) == BURST or perf_counter() >= until:
            yield from burst
            burst.clear()
            until = perf_counter() + BURST_SECONDS
    yield from burst


class _Stopped(Exception):
    """The reading thread has been asked to end."""


def _check(plan: EpisodePlan, rows: int) -> None:
    """A sampler of the user's own may answer anything."""
    for name, side in (("support", plan.support), ("query", plan.query)):
        if len(side) and not _inside(side.rows, rows):
            raise UsageError(
                f"{plan}: its {name} rows are {side.rows.min()} to {side.rows.max()}, and "
                f"{plan.dataset} has rows 0 to {rows - 1}"
            )
        if len(side) and not _inside(side.labels, plan.way):
            raise UsageError(
                f"{plan}: its {name} labels are {side.labels.min()} to {side.labels.max()}, and the "
                f"episode has {plan.way} classes; labels are 0 to {plan.way - 1}"
            )
        if len(side) % plan.clip and not (name == "query" and plan.query_clips == "sliding"):
            raise UsageError(f"{plan}: {len(side)} {name} rows are not whole clips of {plan.clip}")


def _inside(values: NDArray[np.int64], end: int) -> bool:
    """Whether all are 0 to end - 1."""
    return bool(values.min() >= 0 and values.max() < end)
