"""A command that is killed, stopped and started again at random, until it ends by itself."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.common import ROOT
from benchmarks.kill import wait_until_gone
from tests.soak.leaks import wait_for_processor

MOST_DISTURBANCES: Final = 4  # of one command; then it is left alone
SPREAD: Final = 1.1  # times an undisturbed run's processor time in which the moment is drawn
STOPPED_SECONDS: Final = 0.3  # between SIGSTOP and SIGCONT
END_SECONDS: Final = 600  # for a command that is left alone, on a loaded machine
STOPPED_SHARE: Final = 1 / 4  # of disturbances that begin so
ASKED_TO_STOP: Final = (0, 75, 130)  # exit codes after SIGTERM or SIGINT
BEFORE_THE_COMMAND: Final = (-signal.SIGTERM, -signal.SIGINT)  # while Python imports: nothing had begun


class SoakFailure(Exception):
    """Something that a soak must not see."""


@dataclass
class DisturbanceTally:
    """How often which kind of disturbance hit, and how long the last process of a killed command lived on."""

    kinds: Counter[str] = field(default_factory=Counter)
    longest_orphan: float = 0.0

    @property
    def kills(self) -> int:
        return self.kinds["SIGKILL to all"] + self.kinds["SIGKILL to the main process"]


class DisturbedCommand:
    """Starts a command in a process group of its own and disturbs it."""

    def __init__(self, environment: Mapping[str, str], dice: random.Random, tally: DisturbanceTally) -> None:
        self._environment, self._dice, self._tally = dict(environment), dice, tally
        self._kinds: dict[str, Callable[[subprocess.Popen[str]], None]] = {
            "SIGKILL to all": lambda process: os.killpg(process.pid, signal.SIGKILL),
            "SIGKILL to the main process": lambda process: process.kill(),
            "SIGTERM": lambda process: process.terminate(),
            "SIGINT": lambda process: process.send_signal(signal.SIGINT),
        }

    def start(self, command: Sequence[str]) -> subprocess.Popen[str]:
        """Start the command; it is the leader of its group."""
        return subprocess.Popen(
            command, cwd=ROOT, env=os.environ | self._environment, start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, process: subprocess.Popen[str]) -> None:
        """Wait for a command that nothing disturbs."""
        _, errors = process.communicate(timeout=END_SECONDS)
        if process.returncode:
            raise SoakFailure(f"{process.args!r} ended with {process.returncode}:\n{errors[-2000:]}")
        wait_until_gone(process.pid)

    def run(self, command: Callable[[], Sequence[str]], usual: float) -> None:
        """Run what `command` returns, anew after each disturbance; `usual` is its processor time."""
        for _ in range(self._dice.randint(1, MOST_DISTURBANCES)):
            process = self.start(command())
            self.disturb(process, self._dice.random() * usual * SPREAD)
        self.finish(self.start(command()))

    def disturb(self, process: subprocess.Popen[str], seconds: float) -> None:
        """Disturb a command after so many seconds of processor time and wait until all of it has gone."""
        wait_for_processor(process, seconds)
        if self._dice.random() < STOPPED_SHARE:
            self._signal_group(process, signal.SIGSTOP)
            time.sleep(STOPPED_SECONDS)
            self._signal_group(process, signal.SIGCONT)
            self._tally.kinds["SIGSTOP and SIGCONT"] += 1
        kind = self._dice.choice(list(self._kinds))
        if process.poll() is None:
            self._kinds[kind](process)
            self._tally.kinds[kind] += 1
        _, errors = process.communicate(timeout=END_SECONDS)
        self._tally.longest_orphan = max(self._tally.longest_orphan, wait_until_gone(process.pid))
        if process.returncode in BEFORE_THE_COMMAND:
            return
        if process.returncode not in (*ASKED_TO_STOP, -signal.SIGKILL) or "Traceback" in errors:
            raise SoakFailure(f"{kind}: {process.args!r} ended with {process.returncode}:\n{errors[-2000:]}")

    def _signal_group(self, process: subprocess.Popen[str], number: signal.Signals) -> None:
        if process.poll() is None:
            os.killpg(process.pid, number)
