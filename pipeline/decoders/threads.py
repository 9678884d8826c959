"""The decoder for any machine: threads that read and decode, with the GIL released, into place."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Sequence
from time import perf_counter
from typing import Final

from pipeline.decoders.base import Fault, Job
from pipeline.decoders.fill import Filler
from pipeline.decoders.pieces import Pieces
from pipeline.errors import UsageError
from pipeline.records import Encoding
from pipeline.store import Store

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
