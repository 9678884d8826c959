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
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined] # public, not in typeshed
from typing import Any

from pipeline.build.jobs import ShardJob, ShardResult, build_shard
from pipeline.errors import RunInterrupted
from pipeline.process import note_stop_signals


def run_local(job: ShardJob, shards: Sequence[int], workers: int) -> Iterator[ShardResult]:
    """Run the jobs in `workers` processes; with one, in this process."""
    if workers <= 1 or len(shards) <= 1:
        yield from (build_shard(job, shard) for shard in shards)
        return
    processes: list[WorkerProcess] = []
    alive, stop = multiprocessing.Pipe(duplex=False)
    try:
        with _stop_signals_held_back():
            processes.extend(WorkerProcess(job, alive) for _ in range(min(workers, len(shards))))
        alive.close()
        yield from _share_shards(processes, shards)
    finally:
        stop.close()
        for process in processes:
            process.join()


def _share_shards(processes: Sequence[WorkerProcess], shards: Sequence[int]) -> Iterator[ShardResult]:
    """Give each process a shard, and another one for each result."""
    waiting = iter(shards)
    busy: dict[Any, WorkerProcess] = {}
    for process, shard in zip(processes, waiting, strict=False):
        process.begin(shard)
        busy[process.connection] = process
    while busy:
        for connection in wait(list(busy)):
            process = busy[connection]
            result = process.result()
            if (following := next(waiting, None)) is None:
                del busy[connection]
            else:
                process.begin(following)
            yield result


class WorkerProcess:
    """A process that builds shards, one at a time.

    Pipes alone connect it: the locks of multiprocessing's queues have names in /dev/shm, which stay there
    when all processes of a build are killed at once.
    """

    def __init__(self, job: ShardJob, alive: Connection) -> None:
        """Start the process; it ends when the other end of `alive` is closed."""
        context = multiprocessing.get_context("spawn")  # forks of threaded libraries can hang
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_build_shards, args=(job, theirs, alive))
        self._process.start()
        theirs.close()  # the process has the other one: it ends, and so does the connection

    def begin(self, shard: int) -> None:
        """Give the process its next shard."""
        with _worker_death():
            self.connection.send(shard)

    def result(self) -> ShardResult:
        """The result of its shard, or the error."""
        with _worker_death():
            result: ShardResult | Exception = self.connection.recv()
        if isinstance(result, Exception):
            raise result
        return result

    def join(self) -> None:
        """Wait until the process has ended."""
        self._process.join()
        self._process.close()
        self.connection.close()


@contextmanager
def _worker_death() -> Iterator[None]:
    """Say what it means that the connection to a worker ended."""
    try:
        yield
    except (EOFError, OSError) as error:
        raise RunInterrupted(
            "a worker process died (killed for memory, or crashed in a decoder); finished shards are "
            "kept, run the same command again, with fewer --workers if memory was short"
        ) from error


def _build_shards(job: ShardJob, shards: Connection, alive: Connection) -> None:
    """Build each shard whose number arrives, and send its result or error back."""
    _follow_main_process(alive)
    with suppress(EOFError, ConnectionError):  # the main process has ended
        while True:
            shard = shards.recv()
            try:
                result: object = build_shard(job, shard)
            except Exception as error:  # noqa: BLE001 - the main process raises it
                result = ExceptionWithTraceback(error, error.__traceback__)
            shards.send(result)


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


def _follow_main_process(alive: Connection) -> None:
    """Leave Ctrl-C to the main process, and exit at once when it stops or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def watch() -> None:
        with suppress(EOFError, OSError):
            alive.recv()  # nothing is ever sent; the pipe ends with the main process
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="main-process-watch").start()
