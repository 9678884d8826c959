"""A small build under the I/O shim, and what must hold of its output at any moment: for the rows about builds."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import kill
from tests.faults.command_server import CommandOutcome, CommandServer
from tests.faults.io_shim import PlannedFault
from tests.faults.rows import FaultRow

BUILD: Final = "pipeline.build.__main__"
OPTIONS: Final = ("--sizes", "16", "24", "--encode", "16=raw", "24=jpeg:95", "--shard-samples", "4")
IMAGES: Final = 8
NAMED_FAILURES: Final = 3  # failed points that a figure names


@dataclass(frozen=True, slots=True)
class FaultyBuild:
    """A build of a small compressed archive, in processes whose I/O calls can fail."""

    server: CommandServer
    source: Path
    out: Path
    reference: dict[str, str]
    """The sha256 of each file of a build that nothing disturbed."""

    def argv(self, *options: str) -> list[str]:
        """The build's arguments; later options win."""
        words = ["--dataset", "folder", "--source", str(self.source), "--out", str(self.out), *OPTIONS]
        return [*words, "--workers", "1", "--quiet", *options]

    def run(
        self,
        fault: PlannedFault | None = None,
        *options: str,
        log: bool = False,
        meanwhile: Sequence[str] | None = None,
    ) -> CommandOutcome:
        """Build, or go on with what lies there."""
        return self.server.run(BUILD, self.argv(*options), fault, log=log, meanwhile=meanwhile)

    def begin(self) -> None:
        """Remove the output, so that the next build starts from nothing."""
        shutil.rmtree(self.out, ignore_errors=True)

    def problem_after(self, outcome: CommandOutcome) -> str:
        """What is wrong after a disturbed build and after the same command again; empty if all is well."""
        if self.out.exists():
            try:
                kill.check_state(self.out, self.reference)
            except AssertionError as error:
                return f"at {outcome.fired}: {error}"
        again = self.run()
        if again.code:
            return f"at {outcome.fired}: the same command again ends with {again.code}: {again.errors}"
        return self.problem_of_the_end(outcome.fired)

    def problem_of_the_end(self, where: str) -> str:
        """What is wrong with a finished build; empty if it has the bytes of an undisturbed one."""
        found = kill.file_hashes(self.out)
        if found != self.reference:
            return (
                f"at {where}: other bytes in {sorted(set(found.items()) ^ set(self.reference.items()))[:2]}"
            )
        left = [path.name for path in self.out.rglob("*") if kill.is_partial(path, self.out)]
        return f"at {where}: left behind {left}" if left else ""


@contextmanager
def faulty_build(folder: Path) -> Iterator[FaultyBuild]:
    """A build in a folder that is empty, and what it comes to when nothing happens."""
    watched, work = folder / "watched", folder / "work"
    (watched / "source").mkdir(parents=True)
    work.mkdir()
    source = kill.write_noise_archive(watched / "source" / "noise.tar.gz", images=IMAGES)
    with CommandServer(work, watched, (BUILD,)) as server:
        build = FaultyBuild(server, source, watched / "out", {})
        first = build.run()
        assert first.code == 0, first.errors
        build.reference.update(kill.file_hashes(build.out))
        yield build


def spread(total: int, points: int) -> list[int]:
    """So many numbers from 0 to total - 1, evenly; all of them if there are no more."""
    return sorted({at * total // points for at in range(points)}) if points < total else list(range(total))


def row(tried: int, problems: Sequence[str], figure: str, note: str = "") -> FaultRow:
    """A row whose figure ends with the first problems."""
    named = "; ".join(problems[:NAMED_FAILURES])
    return FaultRow(
        tried=tried, failed=len(problems), figure=f"{figure}; {named}" if named else figure, note=note
    )
