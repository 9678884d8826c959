"""F4: the disk is full, at any page that a command writes: exit code 5, nothing half-written, and then the same bytes."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.common import ROOT
from pipeline.errors import OutOfSpace
from tests.faults.builds import faulty_build, row, spread
from tests.faults.io_shim import WRITING_KINDS, PlannedFault
from tests.faults.rows import FaultRow

SHORT = 16
LONG = 400
NAMESPACE: Final = ("unshare", "-m")


def run(points: int, folder: Path) -> FaultRow:
    """Half of the points on a real disk where this process may mount one, the others by failing calls."""
    real = points // 2 if _may_mount() else 0
    problems: list[str] = []
    (folder / "calls").mkdir()
    with faulty_build(folder / "calls") as build:
        build.begin()
        calls = build.run(PlannedFault("fail", -1, kinds=WRITING_KINDS)).calls
        chosen = spread(calls, points - real)
        for call in chosen:
            build.begin()
            done = build.run(
                PlannedFault("fail", call, errno.ENOSPC, WRITING_KINDS - {"unlink", "rmdir"}, sticky=True)
            )
            if done.fired and (done.code != OutOfSpace.exit_code or not done.sentence):
                problems.append(f"full from {done.fired} on: exit {done.code}: {done.errors[-300:]}")
            if problem := build.problem_after(done):
                problems.append(problem)
    figure = f"a disk full from {len(chosen)} of {calls} calls on"
    if not real:
        return row(len(chosen), problems, figure, "no real disk: this process may not mount one")
    (folder / "disk").mkdir()
    command = [*NAMESPACE, sys.executable, "-m", "tests.faults.full_disk", str(folder / "disk"), str(real)]
    done_disk = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done_disk.returncode:
        problems.append(
            f"the disk's own process ended with {done_disk.returncode}: {done_disk.stderr[-500:]}"
        )
        return row(len(chosen) + real, problems, figure)
    found = FaultRow(**json.loads(done_disk.stdout.splitlines()[-1]))
    failed = len(problems) + found.failed
    return FaultRow(
        len(chosen) + found.tried, failed, f"{'; '.join([figure, *problems[:3]])}; {found.figure}"
    )


def _may_mount() -> bool:
    if not shutil.which("unshare"):
        return False
    try_it = [*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(try_it, capture_output=True, check=False).returncode == 0
