"""F13: a process or a thread that loads episodes is lost: an error within 5 s, no hang, and the episodes go on identically."""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unittest.mock import patch

import torch
from torch.utils.data import DataLoader

from pipeline.build.__main__ import main as build
from pipeline.decoders.base import DecodeJob, SampleFault
from pipeline.decoders.fill import PixelFiller
from pipeline.samplers import Fixed
from pipeline.shardset import ShardSet
from pipeline.torch_datasets import EpisodeDataset, EpisodeTensors
from tests.faults.builds import row
from tests.faults.rows import FaultRow

SHORT = 8
LONG = 200
SEED: Final = 13
SIZE: Final = 32  # pixels
EPISODES: Final = 8
WORKERS: Final = 2
MOST_SECONDS: Final = 5.0  # from the loss to the error
ERRORS: Final = (
    MemoryError("no memory"),
    OSError(5, "Input/output error"),
    RuntimeError("a library's error"),
)


class LostWorkers:
    """Streams of episodes whose workers are lost."""

    def __init__(self, folder: Path) -> None:
        flags = [
            "--dataset",
            "demo",
            "--out",
            str(folder / "demo"),
            "--sizes",
            str(SIZE),
            "--quiet",
            "--workers",
            "1",
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            assert build([*flags, "--limit-per-class", "4"]) == 0
        self._shards = ShardSet.open(folder / "demo")
        self._sampler = Fixed(self._shards, split="train", way=4, shot=2, query=2, seed=SEED)
        self._reference = list(self._dataset(0))
        self.slowest = 0.0

    def problem_of_process(self, received: int, worker: int) -> str:
        """SIGKILL of a DataLoader's worker after so many episodes: what is wrong then; empty if nothing is."""
        episodes = iter(DataLoader(self._dataset(0), batch_size=None, num_workers=WORKERS, prefetch_factor=1))
        kept = [next(episodes) for _ in range(received)]
        process = episodes._workers[worker].pid  # type: ignore[attr-defined]

        def rest() -> Iterator[EpisodeTensors]:
            try:
                os.kill(process, signal.SIGKILL)  # torch's error may come in any line from here on
                yield from episodes
            finally:
                with contextlib.suppress(RuntimeError):
                    episodes._shutdown_workers()  # type: ignore[attr-defined]

        return self._problem(f"a worker killed after {received} episodes", kept, rest())

    def problem_of_thread(self, call: int, error: Exception) -> str:
        """An error in a decoding thread, in its n-th piece: what is wrong then; empty if nothing is."""
        calls, fill = iter(range(1_000_000)), PixelFiller.fill

        def failing(self: PixelFiller, job: DecodeJob, begin: int, end: int) -> list[SampleFault]:
            if next(calls) == call:
                raise error
            return fill(self, job, begin, end)

        with patch.object(PixelFiller, "fill", failing):
            return self._problem(f"{type(error).__name__} in piece {call}", [], iter(self._dataset(0)))

    def _problem(self, where: str, kept: list[EpisodeTensors], episodes: Iterator[EpisodeTensors]) -> str:
        """Read on until the error, then go on after the last whole episode with a new stream."""
        begin = time.monotonic()
        try:
            kept.extend(episodes)
        except (
            RuntimeError,
            OSError,
            EOFError,
            MemoryError,
        ):  # torch's of one loss are any of the first three
            self.slowest = max(self.slowest, time.monotonic() - begin)
        else:
            if len(kept) < EPISODES:
                return f"{where}: {len(kept)} episodes and no error"
        del episodes
        if self.slowest > MOST_SECONDS:
            return f"{where}: the error took {self.slowest:.1f} s"
        kept.extend(self._dataset(len(kept)))
        return "" if same(kept, self._reference) else f"{where}: other episodes"

    def _dataset(self, start: int) -> EpisodeDataset:
        return EpisodeDataset(self._shards, self._sampler, image_size=SIZE, start=start, stop=EPISODES)


def run(points: int, folder: Path) -> FaultRow:
    """Lose workers of a DataLoader and threads of a loader in turns."""
    dice, problems, lost = random.Random(SEED), [], LostWorkers(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads
        for point in range(points):
            if point % 2:
                problem = lost.problem_of_thread(
                    dice.randrange(2 * EPISODES), ERRORS[point // 2 % len(ERRORS)]
                )
            else:
                problem = lost.problem_of_process(
                    dice.randrange(1, EPISODES - WORKERS), dice.randrange(WORKERS)
                )
            problems += [problem] if problem else []
    figure = (
        f"{points} losses of processes and threads, the error after {lost.slowest:.2f} s at most, 0 hangs"
    )
    note = "torch's error of a lost process has its number, not the episode's: that is how many were received"
    return row(points, problems, figure, note)


def same(one: list[EpisodeTensors], other: list[EpisodeTensors]) -> bool:
    """Whether two rows of episodes are equal, bit for bit."""
    return len(one) == len(other) and all(
        torch.equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True)
    )
