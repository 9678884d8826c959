"""F15: SIGKILL at every call of a checkpoint's save, and of a training run: the last good one loads, and the run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults.builds import row, spread
from tests.faults.command_server import CommandServer
from tests.faults.io_shim import PlannedFault
from tests.faults.rows import FaultRow
from tests.faults.six_commands import BUILD, TRAIN, SmallCommand, SmallFiles

SHORT = 16
LONG = 240
SAVE: Final = "tests.faults.checkpoint_save"
ELEMENTS: Final = (10, 100_000, 3_000_000)  # from one write to many
TRAINING_SHARE: Final = 8  # one point in so many is a kill of a whole run, which takes seconds
WRITE: Final = frozenset({"write"})


@dataclass(frozen=True, slots=True)
class SavePoint:
    """One kill of one save."""

    elements: int
    over: bool
    """Whether an older checkpoint is there."""
    fault: PlannedFault


def run(points: int, folder: Path) -> FaultRow:
    """Kill saves of checkpoints at their calls, and training runs at theirs."""
    files = SmallFiles(folder)
    with CommandServer(files.work, files.watched, (BUILD, TRAIN, SAVE)) as server:
        training = points // TRAINING_SHARE
        saves = SaveKills(server, files.out / "last.safetensors")
        every = list(saves.points())
        chosen = [every[at] for at in spread(len(every), points - training)]
        problems = [problem for point in chosen if (problem := saves.problem(point))]
        files.build_inputs(server)
        (command,) = (own for own in files.commands() if own.module == TRAIN)
        runs, calls, broken = kill_runs(server, command, training)
    figure = f"{len(chosen)} of {len(every)} kills of a save, {runs} of {calls} of a training run"
    return row(len(chosen) + runs, [*problems, *broken], figure)


class SaveKills:
    """Saves of one file that are killed."""

    def __init__(self, server: CommandServer, file: Path) -> None:
        self._server, self._file = server, file

    def points(self) -> Iterator[SavePoint]:
        """Every call of every kind of save; writes are torn in two as well."""
        for elements in ELEMENTS:
            for over in (False, True):
                self._prepare(elements, over=over)
                calls = self._save(elements, 1)
                writes = self._server.shim.per_kind["write"]
                yield from (SavePoint(elements, over, PlannedFault("kill", call)) for call in range(calls))
                for call in range(writes):
                    yield SavePoint(elements, over, PlannedFault("tear", call, kinds=WRITE))

    def problem(self, point: SavePoint) -> str:
        """What is wrong after a save was killed, and after the next one; empty if nothing is."""
        before = self._prepare(point.elements, over=point.over)
        self._save(point.elements, 1)
        after = self._file.read_bytes()
        self._prepare(point.elements, over=point.over)
        killed = self._server.run(SAVE, [str(self._file), str(point.elements), "1"], point.fault)
        found = self._file.read_bytes() if self._file.exists() else b""
        self._save(point.elements, 2)
        names = [path.name for path in self._file.parent.iterdir()]
        wrong = []
        if found not in (before, after):
            wrong.append("neither the old checkpoint nor the new one is there")
        if names != [self._file.name]:
            wrong.append(f"the next save leaves {names}")
        return f"{point.elements} elements, at {killed.fired}: {'; '.join(wrong)}" if wrong else ""

    def _prepare(self, elements: int, *, over: bool) -> bytes:
        """An empty folder, or one with a checkpoint; its bytes."""
        for path in self._file.parent.iterdir():
            path.unlink()
        if not over:
            return b""
        self._save(elements, 0)
        return self._file.read_bytes()

    def _save(self, elements: int, value: int) -> int:
        """Save undisturbed; the number of calls."""
        done = self._server.run(SAVE, [str(self._file), str(elements), str(value)])
        assert done.code == 0, done.errors
        return done.calls


def kill_runs(server: CommandServer, command: SmallCommand, points: int) -> tuple[int, int, list[str]]:
    """Kill training runs at some of their calls; how many of how many, and what went wrong."""
    command.prepare()
    whole = server.run(command.module, command.argv)
    reference, problems = command.finished(whole), []
    chosen = spread(whole.calls, points)
    assert command.again is not None
    for call in chosen:
        command.prepare()
        killed = server.run(command.module, command.argv, PlannedFault("kill", call))
        again = server.run(command.module, command.again())
        if again.code:
            problems.append(f"training at {killed.fired}: {again.errors.strip()[-300:]}")
        elif command.finished(again) != reference:
            problems.append(f"training at {killed.fired}: goes on to other results")
    return len(chosen), whole.calls, problems
