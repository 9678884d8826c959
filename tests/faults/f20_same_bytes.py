"""F20: other numbers of workers and array tasks in any order give the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks import kill
from tests.faults.builds import row
from tests.faults.rows import FaultRow

SHORT = 2
LONG = 24
SEED = 20


def run(points: int, folder: Path) -> FaultRow:
    """Build so many times, each time otherwise."""
    problems: list[str] = []
    source = kill.write_noise_archive(folder / "noise.tar.gz", images=64)
    kill.wait_for_build(kill.start_build(source, folder / "reference", "--workers", "1"))
    reference = kill.file_hashes(folder / "reference")
    for number in range(points):
        out = folder / f"out-{number}"
        ways = list(_ways(number))
        for options in ways:
            kill.wait_for_build(kill.start_build(source, out, *options))
        if kill.file_hashes(out) != reference:
            problems.append(f"{ways}")
    note = "other builds of libjpeg and Pillow may round otherwise: the manifest records their versions"
    return row(points, problems, f"{points - len(problems)} of {points} builds identical", note)


def _ways(number: int) -> Iterator[tuple[str, ...]]:
    """The commands of one build: some workers, or the tasks of an array in a random order."""
    if number % 2 == 0:
        yield ("--workers", str(2 + number // 2 % 4))
        return
    tasks = 2 + number // 2 % 3
    for task in random.Random(SEED + number).sample(range(tasks), tasks):
        yield ("--workers", "1", "--engine", "array", "--task-index", str(task), "--num-tasks", str(tasks))
