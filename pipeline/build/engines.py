"""Engines run shard jobs: they take shard numbers and yield a `ShardResult` for each, in any order.

A job is idempotent and shares nothing, so an engine may run it anywhere, twice, or again. `run_local`
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

from pipeline.build.jobs import ShardJob, ShardResult, build_shard
from pipeline.errors import RunInterrupted
from pipeline.process import note_stop_signals

JOBS_PER_WORKER: Final = 2  # running or queued: enough that no worker idles, few to cancel


def run_local(job: ShardJob, shards: Sequence[int], workers: int) -> Iterator[ShardResult]:
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
        yield from _run_in_pool(pool, job, shards, workers)
    except BrokenProcessPool as error:
        raise RunInterrupted(
            "a worker process died (killed for memory, or crashed in a decoder); finished shards are "
            "kept, run the same command again, with fewer --workers if memory was short"
        ) from error
    finally:
        stop.close()
        pool.shutdown(wait=True, cancel_futures=True)


def _run_in_pool(
    pool: ProcessPoolExecutor, job: ShardJob, shards: Sequence[int], workers: int
) -> Iterator[ShardResult]:
    waiting = iter(shards)
    running: set[Future[ShardResult]] = set()
    while True:
        for shard in waiting:
            with _stop_signals_held_back():  # a submit may start a worker
                running.add(pool.submit(build_shard, job, shard))
            if len(running) >= workers * JOBS_PER_WORKER:
                break
        if not running:
            return
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


@contextmanager
def _stop_signals_held_back() -> Iterator[None]:
    """Hold back signals to stop until the block has ended, here and in processes that it starts.

    A handler holds them back here; only the signal mask is inherited, so that a new process sees no Ctrl-C
    until it ignores it. The mask alone is not enough, as another thread of this process takes the signal.
    A start that is interrupted half-way leaves a worker that prints a traceback.
    """
    resource_tracker.ensure_running()  # its start within the block would unblock the signals
    with note_stop_signals() as noted:
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
    """Leave Ctrl-C to the main process, and exit at once when it stops or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def watch() -> None:
        with suppress(EOFError, OSError):
            alive.recv()  # nothing is ever sent; the pipe ends with the main process
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="main-process-watch").start()
