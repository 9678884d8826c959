"""libjpeg-turbo and raw pixels, decoded in threads: a chunk is cut into pieces that threads take."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from time import perf_counter
from typing import Final, NamedTuple

from pipeline.decoders.base import Fault, Job
from pipeline.decoders.fill import Filler
from pipeline.errors import PipelineError, UsageError
from pipeline.records import Encoding
from pipeline.store.local import Store


class Piece(NamedTuple):
    """The rows `begin` up to `end` of a job. Whoever takes it calls `over`, once."""

    share: Share
    begin: int
    end: int

    @property
    def job(self) -> Job:
        return self.share.job

    def over(
        self, faults: Sequence[Fault] = (), seconds: float = 0.0, error: BaseException | None = None
    ) -> None:
        """These rows are filled, or cannot be."""
        self.share.add(faults, seconds, error)


class Share:
    """How far a job is. Its last piece finishes it, so nobody writes to its memory after that."""

    def __init__(self, job: Job, pieces: int) -> None:
        self.job = job
        self.error: BaseException | None = None
        self._left = pieces
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, faults: Sequence[Fault], seconds: float, error: BaseException | None) -> None:
        with self._lock:
            self.job.seconds += seconds
            self.error = self.error or error
            self._faults += faults
            self._left -= 1
            last = self._left == 0
        if not last:
            return
        if self.error is None:
            self.job.finish(self._faults)
        else:
            self.job.fail(self.error)


class Pieces:
    """The queue between those who submit jobs and the threads that do them."""

    def __init__(self, *, size: int, takers: int) -> None:
        self._size = size
        self._takers = takers
        self._queue: SimpleQueue[Piece | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False
        self._broken = ""

    def put(self, job: Job, step: int) -> None:
        """Cut a job into pieces of `step` rows. Raises UsageError if it cannot be done here."""
        self._check(job)
        total = len(job.spots)
        share = Share(job, -(-total // step))
        with self._lock:
            if self._closed:
                raise self._error()
            for begin in range(0, total, step):
                self._queue.put(Piece(share, begin, min(begin + step, total)))
        if not total:
            job.finish()

    def _check(self, job: Job) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                "this decoder's threads are in another process (it forked); open the loader in the "
                "process that uses it"
            )
        shape, needed = tuple(job.out.shape), (len(job.spots), self._size, self._size, 3)
        if shape != needed or job.spots.size != self._size or not job.out.is_contiguous():
            raise UsageError(
                f"{len(job.spots)} pictures of {job.spots.size} pixels, and a decoder opened for "
                f"{self._size}, need contiguous memory of shape {needed}; got {shape}"
            )

    def get(self, *, wait: bool = True) -> Piece | None:
        """The next one, None at the end. Without `wait`, queue.Empty if there is none now."""
        while (piece := self._queue.get(block=wait)) is not None:
            if error := self._error() if self._closed else piece.share.error:
                piece.over(error=error)
            else:
                return piece
        return None

    def close(self, broken: str = "") -> None:
        """No more jobs; pieces that nobody took fail. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed, self._broken = True, broken
                for _ in range(self._takers):
                    self._queue.put(None)  # behind all pieces

    def _error(self) -> PipelineError:
        """A new one each time: an exception holds on to all that was in scope where it was raised."""
        if self._broken:
            return PipelineError(self._broken)
        return UsageError("the decoder was closed before this chunk was decoded; open a new loader")


PIECE: Final = {"jpeg": 16, "png": 16, "raw": 128}
"""Samples. Few, so that all threads finish a chunk together; more where one takes next to no time."""


class Threads:
    """libjpeg-turbo for JPEG, plain reading for raw, Pillow for PNG. The exact pixels of libjpeg-turbo.

    A job's pieces are shared by all threads, so the first chunk is there soonest. `fast` decodes JPEG a
    few per cent faster and some grey levels off.
    """

    def __init__(self, store: Store, *, size: int, threads: int, fast: bool = False) -> None:
        if threads < 1:
            raise UsageError(f"a decoder needs at least one thread, got {threads}")
        self._pieces = Pieces(size=size, takers=threads)
        self.workers = [
            threading.Thread(
                target=self._work,
                args=(Filler(store, fast=fast),),
                name=f"decode-{number}",
                daemon=True,
            )
            for number in range(threads)
        ]
        for thread in self.workers:
            thread.start()
        atexit.register(self.close)  # a thread within C++ while Python ends would abort the process

    def wants_device(self, encoding: Encoding) -> bool:  # noqa: ARG002 - the same for all
        return False

    def submit(self, job: Job) -> None:
        """Returns at once: the caller bounds what is in flight."""
        self._pieces.put(job, PIECE[job.spots.encoding.format])

    def close(self) -> None:
        """Pieces under way are completed; those that wait fail. Idempotent.

        Returns when no thread is left, unless one of them calls: a job's `done` may.
        """
        self.stop()
        if threading.current_thread() not in self.workers:
            for thread in self.workers:
                thread.join()
        atexit.unregister(self.close)

    def stop(self) -> None:
        """Close, without waiting."""
        self._pieces.close()

    def _work(self, filler: Filler) -> None:
        while (piece := self._pieces.get()) is not None:
            started = perf_counter()
            faults: Sequence[Fault] = ()
            error: BaseException | None = None
            try:
                faults = filler.fill(piece.job, piece.begin, piece.end)
            except BaseException as raised:  # noqa: BLE001 - it belongs to whoever waits
                error = raised
            piece.over(faults, perf_counter() - started, error)
            del piece, faults, error  # an idle thread holds no pixels
