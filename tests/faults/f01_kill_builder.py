"""F1: SIGKILL of a builder, between any two system calls and in the midst of a write; then the same command again."""

from __future__ import annotations

from pathlib import Path

from benchmarks import kill
from tests.faults.builds import faulty_build, row, spread
from tests.faults.io_shim import PlannedFault
from tests.faults.rows import FaultRow

SHORT = 16
LONG = 400
PROCESS_SHARE = (
    8  # one in so many kills hits a build of several processes at a random moment: it takes seconds
)


def run(points: int, folder: Path) -> FaultRow:
    """Kill before I/O calls and within writes; then whole builds, with workers, at random moments."""
    problems: list[str] = []
    at_random = points // PROCESS_SHARE if points >= LONG else 0
    with faulty_build(folder) as build:
        build.begin()
        calls = build.run().calls
        writes = build.server.shim.per_kind["write"]
        chosen = spread(calls + writes, points - at_random)
        for number in chosen:
            build.begin()
            fault = (
                PlannedFault("kill", number)
                if number < calls
                else PlannedFault("tear", number - calls, kinds=frozenset({"write"}))
            )
            outcome = build.run(fault)
            problem = build.problem_after(outcome) if outcome.code == -9 else f"call {number} did not kill"
            problems += [problem] if problem else []
    figure = f"{len(chosen)} kills at {calls} system calls and within {writes} writes"
    if at_random:
        (folder / "random").mkdir()
        figure += f"; {kill.kill_builds(folder / 'random', at_random).row()}"
    return row(len(chosen) + at_random, problems, figure)
