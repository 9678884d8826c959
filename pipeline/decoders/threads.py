"""Decoding in CPU threads: a chunk is cut into pieces, which threads take from a queue."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from time import perf_counter
from typing import Final, NamedTuple

from pipeline.decoders.base import DecodeJob, SampleFault
from pipeline.decoders.fill import PixelFiller
from pipeline.errors import PipelineError, UsageError
from pipeline.records import Encoding
from pipeline.store.local import SampleStore

MOST_THREADS: Final = 1024  # more than any machine has cores; each takes memory for its stack
PIECE_SAMPLES: Final = {"jpeg": 16, "png": 16, "raw": 128}
"""Few, so that all threads finish a chunk together; more where a sample takes next to no time."""


class ChunkPiece(NamedTuple):
    """Some rows of a job, `begin` up to `end`. The thread that takes them reports to the job, once."""

    job: DecodeJob
    begin: int
    end: int


class PieceQueue:
    """The queue of pieces between the callers of `submit` and the threads that decode."""

    def __init__(self, *, size: int, takers: int) -> None:
        self._size = size
        self._takers = takers
        self._queue: SimpleQueue[ChunkPiece | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._closed = False
        self._broken = ""

    def put(self, job: DecodeJob, step: int) -> None:
        """Cut a job into pieces of `step` rows. Raises UsageError for a job that does not fit."""
        self._check_job(job)
        total = len(job.locations)
        job.pieces = max(1, -(-total // step))
        with self._lock:
            if self._closed:
                raise self._closed_error()
            for begin in range(0, total, step):
                self._queue.put(ChunkPiece(job, begin, min(begin + step, total)))
        if not total:
            job.report()

    def _check_job(self, job: DecodeJob) -> None:
        if os.getpid() != self._process:
            raise UsageError(
                "this decoder's threads are in another process (it forked); open the loader in the "
                "process that uses it"
            )
        shape, needed = tuple(job.out.shape), (len(job.locations), self._size, self._size, 3)
        if shape != needed or job.locations.size != self._size or not job.out.is_contiguous():
            raise UsageError(
                f"{len(job.locations)} images of {job.locations.size} pixels, and a decoder opened for "
                f"{self._size}, need contiguous memory of shape {needed}; got {shape}"
            )

    def get(self, *, wait: bool = True) -> ChunkPiece | None:
        """The next piece, None at the end. Without `wait`, raises queue.Empty if there is none now."""
        while (piece := self._queue.get(block=wait)) is not None:
            if error := self._closed_error() if self._closed else piece.job.error:
                piece.job.report(error=error)
            else:
                return piece
        return None

    def close(self, broken: str = "") -> None:
        """Take no more jobs; pieces that no thread took fail. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed, self._broken = True, broken
                for _ in range(self._takers):
                    self._queue.put(None)  # behind all pieces

    def _closed_error(self) -> PipelineError:
        """A new error each time: an exception keeps alive what was in scope where it was raised."""
        if self._broken:
            return PipelineError(self._broken)
        return UsageError("the decoder was closed before this chunk was decoded; open a new loader")


class ThreadedDecoder:
    """Decodes JPEG by libjpeg-turbo and PNG by Pillow, and reads raw pixels, in threads.

    All threads work on one chunk, so the first one is ready soonest. Pixels are libjpeg-turbo's exactly;
    `fast` decodes JPEG a few per cent faster and some grey levels off.
    """

    def __init__(self, store: SampleStore, *, size: int, threads: int, fast: bool = False) -> None:
        if not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"a decoder has 1 to {MOST_THREADS:,} threads, got {threads}")
        self._pieces = PieceQueue(size=size, takers=threads)
        self.workers = [
            threading.Thread(
                target=self._decode_pieces,
                args=(PixelFiller(store, fast=fast),),
                name=f"decode-{number}",
                daemon=True,
            )
            for number in range(threads)
        ]
        for thread in self.workers:
            thread.start()
        atexit.register(self.close)  # a thread in C++ while Python exits aborts the process

    def wants_device(self, encoding: Encoding) -> bool:  # noqa: ARG002 - no format needs it
        return False

    def submit(self, job: DecodeJob) -> None:
        """Returns at once: the caller bounds what is in flight."""
        self._pieces.put(job, PIECE_SAMPLES[job.locations.encoding.format])

    def close(self) -> None:
        """Complete the pieces under way and fail those that wait. Idempotent.

        Returns when no thread is left, unless one of them calls: a job's `done` may.
        """
        self.stop()
        if threading.current_thread() not in self.workers:
            for thread in self.workers:
                thread.join()
        atexit.unregister(self.close)

    def stop(self) -> None:
        """Close without waiting for the threads."""
        self._pieces.close()

    def _decode_pieces(self, filler: PixelFiller) -> None:
        while (piece := self._pieces.get()) is not None:
            started = perf_counter()
            faults: Sequence[SampleFault] = ()
            error: BaseException | None = None
            try:
                faults = filler.fill(piece.job, piece.begin, piece.end)
            except BaseException as raised:  # noqa: BLE001 - reported by the job
                error = raised
            piece.job.report(faults, perf_counter() - started, error)
            del piece, faults, error  # an idle thread holds no pixels
