"""F17: two builders of one output, one of them stopped (SIGSTOP) anywhere while the other finishes, or waits for it: both succeed."""

from __future__ import annotations

import errno
from pathlib import Path

from benchmarks import kill
from tests.faults.builds import FaultyBuild, faulty_build, row, spread
from tests.faults.io_shim import PlannedFault
from tests.faults.rows import FaultRow

SHORT = 10
LONG = 350
PAIR_SHARE = 20  # one in so many points is a pair of real commands with workers, which takes seconds


def run(points: int, folder: Path) -> FaultRow:
    """Stop a builder before each of its calls; then pairs that run side by side; then a disk without hard links."""
    problems: list[str] = []
    pairs = points // PAIR_SHARE if points >= LONG else 0
    with faulty_build(folder) as build:
        build.begin()
        calls = build.run().calls
        chosen = spread(calls, points - pairs - 1)
        problems += [problem for call in chosen if (problem := _problem_of_stopped(build, call))]
        build.begin()
        no_links = PlannedFault("fail", 0, errno.EPERM, frozenset({"link"}), sticky=True)
        if build.run(no_links).code or build.problem_of_the_end("a disk without hard links"):
            problems.append(
                build.problem_of_the_end("a disk without hard links") or "no build without hard links"
            )
        for pair in range(pairs):
            problems += [
                f"pair {pair}: {problem}" for problem in _problems_of_pair(build, folder / f"pair-{pair}")
            ]
    figure = f"a builder stopped at {len(chosen)} of {calls} calls while another built it all, {pairs} pairs at once"
    return row(len(chosen) + pairs + 1, problems, f"{figure}, one build without hard links")


def _problem_of_stopped(build: FaultyBuild, call: int) -> str:
    build.begin()
    done = build.run(PlannedFault("stop", call), meanwhile=build.argv())
    if done.code or done.meanwhile:
        return f"stopped at {done.fired}: exit codes {done.code} and {done.meanwhile}: {done.errors[-300:]}"
    return build.problem_of_the_end(done.fired)


def _problems_of_pair(build: FaultyBuild, out: Path) -> list[str]:
    """Two commands at once, of two workers each."""
    words = ("--out", str(out), *build.argv()[-1:], "--sizes", "16", "24", "--encode", "16=raw", "24=jpeg:95")
    both = [
        kill.start_build(build.source, out, *words, "--shard-samples", "4", "--workers", "2")
        for _ in range(2)
    ]
    errors = [build.communicate()[1].decode() for build in both]
    problems = [
        f"exit code {one.returncode}: {error[-300:]}"
        for one, error in zip(both, errors, strict=True)
        if one.returncode
    ]
    if kill.file_hashes(out) != build.reference:
        problems.append("other bytes")
    return problems + [f"left behind {path.name}" for path in out.rglob("*") if kill.is_partial(path, out)]
