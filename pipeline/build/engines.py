"""Engines run shard jobs. An engine takes shard numbers and yields `Done` in any order.

A job is idempotent and shares nothing, so an engine may run it anywhere, twice, or again. `local`
runs worker processes; `array` picks one array task's part of the shards, for Slurm, Kubernetes
indexed jobs or GNU parallel, and runs it locally. Further engines belong here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Final

from pipeline.build.jobs import Done, Job, build_shard
from pipeline.errors import Interrupted
from pipeline.process import stopping

AHEAD: Final = 2  # jobs waiting per worker; enough that none idles, few to cancel


def local(job: Job, shards: Sequence[int], workers: int) -> Iterator[Done]:
    """Run the jobs in `workers` processes; with one, in this process."""
    if workers <= 1 or len(shards) <= 1:
        yield from (build_shard(job, shard) for shard in shards)
        return
    context = multiprocessing.get_context("spawn")  # forks of threaded libraries can hang
    alive, stop = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(
        min(workers, len(shards)), mp_context=context, initializer=_start_worker, initargs=(alive,)
    )
    try:
        yield from _drain(pool, job, shards, workers)
    except BrokenProcessPool as error:
        raise Interrupted(
            "a worker process died (killed for memory, or crashed in a decoder); finished shards are "
            "kept, run the same command again, with fewer --workers if memory was short"
        ) from error
    finally:
        stop.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _drain(
    pool: ProcessPoolExecutor, job: Job, shards: Sequence[int], workers: int
) -> Iterator[Done]:
    waiting = iter(shards)
    running: set[Future[Done]] = set()
    while True:
        for shard in waiting:
            with _sheltered():  # it may start a worker
                running.add(pool.submit(build_shard, job, shard))
            if len(running) >= workers * AHEAD:
                break
        if not running:
            return
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


@contextmanager
def _sheltered() -> Iterator[None]:
    """Signals to stop wait until the end; processes started within see no Ctrl-C until they can ignore it.

    Both are needed: a mask is inherited, but holds back nothing here, as another thread takes the signal;
    a handler holds it back, but is not inherited. A start that is cut in two leaves a worker to complain.
    """
    resource_tracker.ensure_running()  # whose start would end the shelter
    with stopping() as noted:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    for number in noted:
        signal.raise_signal(number)


def array_part(shards: Sequence[int], task: int, tasks: int) -> list[int]:
    """The shards of one task of an array job."""
    return [shard for shard in shards if shard % tasks == task]


def _start_worker(alive: Connection) -> None:
    """Leave Ctrl-C to the main process, and go at once when it stops or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def watch() -> None:
        with suppress(EOFError, OSError):
            alive.recv()  # nothing is ever sent; the pipe ends with the main process
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="main-process-watch").start()
