"""Finished tasks on disk: a line for each, from which an evaluation goes on and comes to its end.

Every process writes a file of its own (`tasks-<rank>.jsonl`) and reads those of all, so that any number
of them can go on where any other number stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from learners.evaluate.records import TaskAnswers
from learners.evaluate.work import Key
from pipeline.errors import IntegrityError, UsageError
from pipeline.layout import write_whole

SETTINGS: Final = "settings.json"
TICK: Final = 0.2  # seconds between two looks at the others' files


def key(task: TaskAnswers) -> Key:
    """Of a finished task."""
    return Key(task.dataset, task.mode, task.number)


class Ledger:
    """This process's file, and the others'."""

    def __init__(self, folder: Path, rank: int) -> None:
        """A last line that was cut off when its process was killed is dropped."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"tasks-{rank}.jsonl"
        if self._path.exists():
            data = self._path.read_bytes()
            if not data.endswith(b"\n"):
                write_whole(self._path, data[: data.rfind(b"\n") + 1])
        self._file = self._path.open("a", encoding="utf-8")

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, task: TaskAnswers) -> None:
        """One more is finished."""
        self._file.write(json.dumps(task.described(), separators=(",", ":")) + "\n")
        self._file.flush()

    def tasks(self) -> dict[Key, TaskAnswers]:
        """All that are finished, by whichever process."""
        found = (task for file in self._files() for task in _tasks(file))
        return {key(task): task for task in found}

    def wait(self, wanted: set[Key]) -> dict[Key, TaskAnswers]:
        """All that are finished, once these are among them.

        Not a message between processes: those are given up after some minutes, and one process may have
        a task that takes longer.
        """
        before = -1
        while True:
            size = sum(file.stat().st_size for file in self._files())
            if size != before and wanted <= (found := self.tasks()).keys():
                return found
            before = size
            time.sleep(TICK)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("tasks-*.jsonl"))


def agree(folder: Path, settings: Mapping[str, Any], *, leads: bool) -> None:
    """Begin an evaluation in a folder, or make sure that it goes on with the settings it began with."""
    path = folder / SETTINGS
    if not path.exists():
        if any(folder.glob("tasks-*.jsonl")):
            raise UsageError(
                f"{folder} has finished tasks and no {SETTINGS} that says of what; choose another folder "
                "with --out"
            )
        if leads:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, (json.dumps(settings, indent=1) + "\n").encode())
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise IntegrityError(
            f"{path} is damaged: {error}; choose another folder with --out"
        ) from error
    now = json.loads(json.dumps(settings))
    changed = [
        f"{name} was {_shown(before.get(name))} and is {_shown(now.get(name))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UsageError(
            f"{folder} holds an evaluation with other settings: {'; '.join(changed)}. Go on with those, or "
            "begin another one with --out"
        )


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value)


def _tasks(file: Path) -> Iterator[TaskAnswers]:
    """Of one process; a last line without an end is one that was cut off."""
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        try:
            yield TaskAnswers.from_described(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(
                f"{file}, line {number}, is damaged: {error!r}; delete the line, and its task is done again"
            ) from error
