"""F14: SIGTERM at any moment of a training run: saved within 10 s, and resumed to the bits of a run that nothing stopped."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import torch

import train
from learners import checkpoint
from learners.methods.catalogue import make_learner
from learners.training import validate
from learners.training.journal import RunJournal, read_records
from pipeline.build.__main__ import main as build
from pipeline.errors import RunInterrupted
from tests.faults.builds import row
from tests.faults.rows import FaultRow

SHORT = 12
LONG = 150
SEED: Final = 14
SIZE: Final = 32  # pixels
MOST_SECONDS: Final = 10.0  # from the signal to the saved checkpoint
STOPS: Final = 2  # signals at most in one run
TASKS: Final = 6


class StoppedRuns:
    """Runs that get SIGTERM before the n-th call of what a training run does."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._shards = folder, folder / "demo"
        flags = [
            "--dataset",
            "demo",
            "--out",
            str(self._shards),
            "--sizes",
            str(SIZE),
            "--quiet",
            "--workers",
            "1",
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            assert build([*flags, "--encode", f"{SIZE}=raw", "--limit-per-class", "4"]) == 0
        self._calls, self._at, self._sent = 0, -1, 0.0
        self.slowest = 0.0
        self._train(self._command(folder / "whole"), at=-1)
        self.calls = self._calls
        """The moments of a run that nothing stops."""
        self._reference = self._result(folder / "whole")

    def problem(self, moments: list[int]) -> str:
        """What is wrong with a run that is stopped at these moments, and resumed; empty if nothing is."""
        out = self._folder / "stopped"
        shutil.rmtree(out, ignore_errors=True)
        command = self._command(out)
        for moment in [*moments, -1]:
            if not self._train(command, at=moment):
                break  # the signal came in the last step, or not at all
            self.slowest = max(self.slowest, time.monotonic() - self._sent)
            command = ["--resume", str(out)]
        if self.slowest > MOST_SECONDS:
            return f"stopped at {moments}: {self.slowest:.1f} s until it was saved"
        return "" if same(self._result(out), self._reference) else f"stopped at {moments}: other results"

    def _command(self, out: Path) -> list[str]:
        flags = {
            "--shards": self._shards, "--out": out, "--learner": "protonets", "--backbone": "conv4", "--image-size": SIZE,
            "--way": 3, "--shot": 2, "--query": 2, "--h": 5, "--tasks": TASKS, "--tasks-per-step": 2, "--save-every": 4,
            "--validate-every": 4, "--validation-tasks": 2, "--threads": 1, "--device": "cpu",
        }  # fmt: skip
        return [str(word) for pair in flags.items() for word in pair]

    def _train(self, command: list[str], at: int) -> bool:
        """Train, with SIGTERM at a moment; whether the run stopped."""
        self._calls, self._at = 0, at
        learner = type(make_learner("protonets", "conv4"))
        places: list[tuple[Any, str]] = [
            (learner, "gradient"), (torch.optim.Adam, "step"), (checkpoint, "save"), (validate, "answer_task"),
            (RunJournal, "write"),
        ]  # fmt: skip
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            for owner, name in places:
                stack.enter_context(patch.object(owner, name, self._counted(getattr(owner, name))))
            try:
                train.main(command)
            except RunInterrupted:
                return True
        return False

    def _counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, before whose call the signal comes if it is its turn."""

        def call(*arguments: Any, **named: Any) -> Any:
            if self._calls == self._at:
                self._sent = time.monotonic()
                os.kill(os.getpid(), signal.SIGTERM)
            self._calls += 1
            return function(*arguments, **named)

        return call

    def _result(self, out: Path) -> dict[str, Any]:
        """Both checkpoints (weights, optimiser, counts) and the figures of each record."""
        files = {name: checkpoint.load(out / f"{name}.safetensors") for name in ("last", "best")}
        records = [
            (line["kind"], line["tasks"], line["accuracy"], line.get("loss")) for line in read_records(out)
        ]
        return {**{f"{name} values": values for name, (_, values) in files.items()}, "records": records,
                **{f"{name} {key}": tensor for name, (tensors, _) in files.items() for key, tensor in tensors.items()}}  # fmt: skip


def run(points: int, folder: Path) -> FaultRow:
    """Stop so many runs, each at one or two moments."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs, dice = StoppedRuns(folder), random.Random(SEED)
        every = [[dice.randrange(runs.calls) for _ in range(dice.randint(1, STOPS))] for _ in range(points)]
        problems = [problem for moments in every if (problem := runs.problem(moments))]
    finally:
        torch.set_num_threads(threads)
    stops = sum(map(len, every))
    figure = f"{points} runs of {TASKS} episodes, {stops} signals at {runs.calls} moments, saved after {runs.slowest:.2f} s at most"
    return row(
        points,
        problems,
        figure,
        note="on the CPU; a GPU's kernels need PyTorch's deterministic ones to be bit-equal",
    )


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two results are equal, bit for bit."""
    if one.keys() != other.keys():
        return False
    pairs = [(one[name], other[name]) for name in one]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)
