"""F18: two builders of one output with different plans: the second is refused, wherever the first has got to."""

from __future__ import annotations

from pathlib import Path

from benchmarks import kill
from pipeline.errors import UsageError
from tests.faults.builds import FaultyBuild, faulty_build, row, spread
from tests.faults.io_shim import PlannedFault
from tests.faults.rows import FaultRow

SHORT = 10
LONG = 350
OTHER_PLAN = ("--resize", "crop")


def run(points: int, folder: Path) -> FaultRow:
    """Stop a builder before each of its calls, and run one with another plan to its end meanwhile."""
    problems: list[str] = []
    with faulty_build(folder) as build:
        build.begin()
        assert build.run(None, *OTHER_PLAN).code == 0
        trees = {0: build.reference, UsageError.exit_code: kill.file_hashes(build.out)}
        build.begin()
        calls = build.run().calls
        chosen = spread(calls, points)
        won = 0
        for call in chosen:
            build.begin()
            done = build.run(PlannedFault("stop", call), meanwhile=build.argv(*OTHER_PLAN))
            won += done.code == 0
            if problem := _problem(build, done.code, done.meanwhile, trees):
                problems.append(f"stopped at {done.fired}: {problem}: {done.errors[-300:]}")
    figure = f"{len(chosen)} pairs: the first won {won} times, the second {len(chosen) - won}, the other was refused"
    return row(len(chosen), problems, figure)


def _problem(build: FaultyBuild, first: int, second: int, trees: dict[int, dict[str, str]]) -> str:
    """What is wrong with two builders' ends: one succeeds, the other says that the plan is another one."""
    if sorted((first, second)) != [0, UsageError.exit_code]:
        return f"exit codes {first} and {second}"
    return "" if kill.file_hashes(build.out) == trees[first] else "files of both plans"
