"""A soak: rounds of disturbed work beside two processes that live through all of it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.common import ROOT
from tests.learners.demo.serving import write_photos
from tests.soak.disturbed import DisturbanceTally, DisturbedCommand, SoakFailure
from tests.soak.jobs import EqualParts, SoakJob, differences, soak_jobs
from tests.soak.leaks import HeldResources, files_in, processes_with, unused_shared_memory
from tests.soak.serving import SoakServer
from tests.soak.settings import serve_command

MARK: Final = "LITE_SHARDS_SOAK"  # in the environment of every process that a soak starts
WARM_UP_ROUNDS: Final = 3  # before what the processes that stay hold is measured
MEMORY_MB: Final = 64  # that a process which stays may grow in a soak: allocators keep some
FEW: Final = 5  # differences that a message lists


class ResidentReader:
    """A process that reads, trains and evaluates whenever it is told to; it is never disturbed."""

    def __init__(self, shards: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.resident", str(shards)], cwd=ROOT, text=True,
            env=os.environ | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run_pass(self) -> None:
        """Read, train and evaluate once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            raise SoakFailure("the resident process failed; its errors stand above")

    def close(self) -> None:
        self.process.communicate()


class SoakSession:
    """The state of a soak in one folder. What must not happen raises SoakFailure."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder, self._dice = folder, random.Random(seed)
        self._temporary = folder / "tmp"
        self._temporary.mkdir()
        self._mark = uuid.uuid4().hex
        self.environment = {"TMPDIR": str(self._temporary), "OMP_NUM_THREADS": "1", MARK: self._mark}
        self._shared_before = unused_shared_memory()
        self._references: dict[str, tuple[EqualParts, float]] = {}
        self.tally = DisturbanceTally()
        self._disturbed = DisturbedCommand(self.environment, self._dice, self.tally)
        self.rounds: Counter[str] = Counter()
        """Finished rounds by the name of their job, each equal to the undisturbed result."""
        self.growth: dict[str, str] = {}
        """What the processes that stayed held in the end and after their warm-up, in words."""

    def prepare(self) -> tuple[Path, Path]:
        """Do every job once without any disturbance; the shards and the run that the others use."""
        shards, run = (self._folder / f"reference-{name}" for name in ("build", "train"))
        self.jobs = soak_jobs(shards, run)
        for job in self.jobs:
            self.undisturbed(job)
        return shards, run

    def undisturbed(self, job: SoakJob) -> None:
        """Do a job alone: its result is the one that disturbed rounds must have."""
        out, begin = self._folder / f"reference-{job.name}", sum(os.times()[2:4])
        self._disturbed.finish(self._disturbed.start(job.command(out)))
        self._references[job.name] = job.result(out), sum(os.times()[2:4]) - begin

    def soak(self, seconds: float) -> None:
        """Work for so many seconds, and a few rounds at least."""
        begin = time.monotonic()
        shards, run = self.prepare()
        photos = write_photos(self._folder / "photos")
        with ExitStack() as stack:
            page = SoakServer(serve_command(run), self.environment)
            stack.callback(page.end, signal.SIGINT)
            resident = ResidentReader(shards, self.environment)
            stack.callback(resident.close)
            expected, held = page.converse(photos), {}
            staying = {"page": page.process.pid, "reader": resident.process.pid}
            number = 0
            while number <= WARM_UP_ROUNDS or time.monotonic() - begin < seconds:
                resident.run_pass()
                self._talk(page, photos, expected)
                if number == WARM_UP_ROUNDS:
                    held = {name: HeldResources.of(process) for name, process in staying.items()}
                for job in self.jobs:
                    self.disturbed_round(job)
                self._disturbed_page(run, photos, expected)
                number += 1
                print(f"{time.monotonic() - begin:6,.0f} s: {self.describe_rounds()}", flush=True)
            self._compare_held(held, staying)

    def disturbed_round(self, job: SoakJob) -> None:
        """One job, disturbed until it ends; its result must be that of the undisturbed one."""
        out = self._folder / f"round-{job.name}"
        expected, usual = self._references[job.name]
        self._disturbed.run(lambda: job.command(out), usual)
        if names := differences(job.result(out), expected):
            raise SoakFailure(f"{job.name} in {out} differs from the undisturbed one: {names[:FEW]}")
        shutil.rmtree(out)
        self.rounds[job.name] += 1

    def _disturbed_page(self, run: Path, photos: Path, expected: list[list[float]]) -> None:
        page = SoakServer(serve_command(run), self.environment)
        self._talk(page, photos, expected)
        page.end(self._dice.choice((signal.SIGINT, signal.SIGKILL)))
        self.rounds["serve"] += 1

    def _talk(self, page: SoakServer, photos: Path, expected: list[list[float]]) -> None:
        page.interrupt_requests(self._dice)
        if page.converse(photos) != expected:
            raise SoakFailure("the page answers otherwise than before")

    def _compare_held(self, before: dict[str, HeldResources], staying: dict[str, int]) -> None:
        for name, process in staying.items():
            now = HeldResources.of(process)
            if (more := now.grew_from(before[name])) or now.memory_mb - before[name].memory_mb > MEMORY_MB:
                raise SoakFailure(
                    f"the {name} holds more than at first: {more or 'memory'}: {before[name]}, {now}"
                )
            self.growth[name] = (
                f"{name}: {now.descriptors} descriptors, {now.threads} threads, "
                f"{now.memory_mb - before[name].memory_mb:+.0f} MB"
            )

    def check_nothing_is_left(self, *, shared_memory: bool = True) -> None:
        """No process of the soak still runs, and no shared memory or temporary file of it is left."""
        if processes := processes_with(MARK, self._mark):
            raise SoakFailure(f"processes live on: {sorted(processes)}")
        if shared_memory and (names := unused_shared_memory() - self._shared_before):
            raise SoakFailure(f"shared memory that nobody uses: {sorted(names)}")
        if files := files_in(self._temporary):
            raise SoakFailure(f"temporary files: {files[:FEW]}, {len(files)} in all")

    def describe_rounds(self) -> str:
        """Rounds and disturbances so far."""
        rounds = ", ".join(f"{count} {name}" for name, count in self.rounds.items())
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.tally.kinds.most_common())
        return f"rounds: {rounds}; disturbances: {kinds}"
