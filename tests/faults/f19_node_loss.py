"""F19: a task of an array job is lost with its node; the others finish, the task runs again, the bytes are the same."""

from __future__ import annotations

from pathlib import Path

from tests.faults.builds import faulty_build, row, spread
from tests.faults.io_shim import PlannedFault
from tests.faults.rows import FaultRow

SHORT = 8
LONG = 120
TASKS = 2


def run(points: int, folder: Path) -> FaultRow:
    """Kill one task before one of its calls, run the other task, then the lost one again."""
    problems: list[str] = []
    with faulty_build(folder) as build:
        build.begin()
        calls = build.run(None, *_task(0)).calls
        chosen = spread(calls, points)
        for number, call in enumerate(chosen):
            lost = number % TASKS
            build.begin()
            done = build.run(PlannedFault("kill", call), *_task(lost))
            codes = [build.run(None, *_task(task)).code for task in (1 - lost, lost)]
            if any(codes):
                problems.append(f"killed at {done.fired}: the others end with {codes}")
            elif problem := build.problem_of_the_end(done.fired):
                problems.append(problem)
    note = "the array engine (Slurm, Kubernetes, GNU parallel); there is no Ray engine"
    return row(
        len(chosen), problems, f"{len(chosen)} tasks lost, {len(chosen) - len(problems)} sets identical", note
    )


def _task(task: int) -> tuple[str, ...]:
    return ("--engine", "array", "--task-index", str(task), "--num-tasks", str(TASKS))
