"""F21: descriptors, shared memory and temporary files: few while it works, none left after kill -9."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common import ROOT
from benchmarks.kill import running_processes, wait_until_gone
from tests.faults.rows import FaultRow
from tests.soak.leaks import files_in, named_shared_memory, wait_for_processor
from tests.soak.settings import build_command, read_command, train_command

SHORT = 2
LONG = 60
SEED = 21
DESCRIPTORS = 256  # `ulimit -n` of a modest machine; ours must do with it
KINDS = ("build", "read", "build", "train", "build")  # of the points, in turn; builds start soonest
SECONDS = {
    "build": 1.8,
    "read": 3.5,
    "train": 6.0,
}  # of processor time, about what each takes: when it is killed
FEW = 3  # failures that the figure names


def run(points: int, folder: Path) -> FaultRow:
    """Kill commands at random moments, then let each end; look at what is left both times."""
    dice, failures, most = random.Random(SEED), [], 0
    shards = folder / "shards"
    finish(start(build_command(shards), folder))
    for point in range(points):
        kind = KINDS[point % len(KINDS)]
        out = folder / f"{kind}-{point}"
        command = command_of(kind, shards, out)
        names, descriptors = killed(start(command, folder), dice.random() * SECONDS[kind])
        most = max(most, descriptors)
        failures += [f"{kind} {point}: {name} after kill -9" for name in [*names, *files_in(folder / "tmp")]]
        again = command if kind != "train" else command_of(kind, shards, folder / f"again-{point}")
        if errors := finish(start(again, folder)):
            failures.append(f"{kind} {point}: {errors}")
        failures += [f"{kind} {point}: {name} at the end" for name in files_in(folder / "tmp")]
    figure = (
        f"{points} kills under ulimit -n {DESCRIPTORS}: {len(failures)} names in /dev/shm or temporary files left, "
        f"{most} descriptors of one process at most {failures[:FEW] or ''}"
    )
    return FaultRow(points, len(failures), figure.strip())


def command_of(kind: str, shards: Path, out: Path) -> list[str]:
    """A command that works in `out`."""
    if kind == "train":
        return train_command(shards, out)
    return build_command(out) if kind == "build" else read_command(shards, out)


def start(command: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """Start a command with few descriptors and a temporary folder of its own."""
    (folder / "tmp").mkdir(exist_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = (min(DESCRIPTORS, hard), hard)
    return subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env=os.environ | {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits),  # noqa: PLW1509 - no threads here
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a command's end; its errors if it failed."""
    _, errors = process.communicate()
    return errors.strip()[-300:] if process.returncode else ""


def killed(process: subprocess.Popen[str], seconds: float) -> tuple[list[str], int]:
    """Kill a whole command after so much processor time: the shared memory that is left, and its most descriptors.

    All its processes are stopped first, so that what they hold is what they hold when they are killed.
    """
    wait_for_processor(process, seconds)
    own = [int(entry.name) for entry in running_processes(process.pid)]
    held: set[str] = set()
    descriptors = 0
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGSTOP)
        held = named_shared_memory(own)
        descriptors = max((open_descriptors(number) for number in own), default=0)
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    wait_until_gone(process.pid)
    return sorted(name for name in held if Path(name).exists()), descriptors


def open_descriptors(process: int) -> int:
    """The descriptors of a process, 0 if it has ended."""
    try:
        return len(list(Path(f"/proc/{process}/fd").iterdir()))
    except OSError:
        return 0
