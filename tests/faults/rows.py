"""The rows of the fault matrix, F1 to F22: one module each, found by its name, run in an empty folder."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

MATRIX: Final = tuple(f"F{number}" for number in range(1, 23))
FOLDER: Final = Path(__file__).resolve().parent
MODULE: Final = re.compile(r"f(\d\d)_\w+")


@dataclass(frozen=True)
class FaultRow:
    """The result of one row: how many points (kills, cuts, failing calls, ...) were tried, and how many failed."""

    tried: int
    failed: int
    figure: str
    """The result in words, the first few failed points by name."""
    note: str = ""
    """What falls short of the matrix, and why."""

    @property
    def met(self) -> bool:
        return self.tried > 0 and self.failed == 0


@dataclass(frozen=True)
class FaultScript:
    """One row's module: what it shows, how to run it, and how many points a short and a long run try.

    A row that cannot run on this machine (no compiler, not root) raises unittest.SkipTest with the reason.
    """

    name: str
    title: str
    run: Callable[[int, Path], FaultRow]
    short: int
    long: int

    def run_in_empty_folder(self, points: int) -> FaultRow:
        """Run the row in a temporary folder that is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix=f"fault-{self.name}-", ignore_cleanup_errors=True) as folder:
            return self.run(points, Path(folder))


def row_names() -> dict[str, str]:
    """The rows that have a module, in order, and the modules' names."""
    stems = sorted(path.stem for path in FOLDER.glob("f*.py"))
    found = ((MODULE.fullmatch(stem), stem) for stem in stems)
    return {f"F{int(match[1])}": stem for match, stem in found if match}


def load_row(name: str) -> FaultScript:
    """The row of that name, imported now: rows are many and their imports heavy."""
    module = import_module(f"tests.faults.{row_names()[name]}")
    title = (module.__doc__ or "").strip().splitlines()[0].removeprefix(f"{name}: ").removesuffix(".")
    return FaultScript(name, title, module.run, module.SHORT, module.LONG)
