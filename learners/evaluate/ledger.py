"""The ledger of finished tasks on disk: a line for each, from which a stopped evaluation goes on.

Every process writes a file of its own (`tasks-<rank>.jsonl`) and reads those of all, so that any number
of processes can go on where any other number stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from learners.evaluate.records import TaskAnswers
from learners.evaluate.task_set import TaskKey
from learners.networks.chunk_sizes import ChunkSizes
from pipeline.errors import UsageError, errors_about
from pipeline.layout import LineWriter, write_atomically
from pipeline.settings import parse_json, read_json, typed

SETTINGS_JSON: Final = "settings.json"
POLL_SECONDS: Final = 0.2  # between two looks at the files of the other processes


class TaskLedger:
    """The finished tasks in a folder: the file that this process writes, and those of the others."""

    def __init__(self, folder: Path, rank: int) -> None:
        """Open this process's file; a last line that was cut off when a process was killed is dropped."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"tasks-{rank}.jsonl"
        if self._path.exists():
            data = self._path.read_bytes()
            if not data.endswith(b"\n"):
                write_atomically(self._path, data[: data.rfind(b"\n") + 1])
        self._file = LineWriter(self._path)

    def __enter__(self) -> TaskLedger:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def add(self, task: TaskAnswers) -> None:
        """Write a finished task."""
        self._file.write(json.dumps(task.described(), separators=(",", ":")))

    def tasks(self) -> dict[TaskKey, TaskAnswers]:
        """All tasks that any process has finished."""
        finished = (task for file in self._files() for task in _read_tasks(file))
        return {TaskKey(task.dataset, task.mode, task.number): task for task in finished}

    def wait(self, wanted: set[TaskKey]) -> dict[TaskKey, TaskAnswers]:
        """All finished tasks, once the wanted ones are among them.

        This polls files instead of waiting for a message between processes: such waits time out after some
        minutes, and a task may take longer.
        """
        before = -1
        while True:
            size = sum(file.stat().st_size for file in self._files())
            if size != before and wanted <= (tasks := self.tasks()).keys():
                return tasks
            before = size
            time.sleep(POLL_SECONDS)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("tasks-*.jsonl"))


def recorded_chunks(folder: Path) -> ChunkSizes | None:
    """The chunks of an evaluation that was begun in a folder; None if none was."""
    path = folder / SETTINGS_JSON
    if not path.exists():
        return None
    cure = "choose another folder with --out"
    settings = typed(read_json(path, cure=cure), dict[str, Any], f"{path} is damaged, {cure}")
    graph = typed(settings.get("chunk"), int, f"{path}: chunk")
    return ChunkSizes(graph, typed(settings.get("forward_chunk", graph), int, f"{path}: forward_chunk"))


def begin_or_resume(folder: Path, settings: Mapping[str, Any], *, leads: bool) -> None:
    """Begin an evaluation in a folder, or check that it goes on with the settings it began with."""
    path = folder / SETTINGS_JSON
    if not path.exists():
        if any(folder.glob("tasks-*.jsonl")):
            raise UsageError(
                f"{folder} has finished tasks and no {SETTINGS_JSON} that says of what; choose another folder "
                "with --out"
            )
        if leads:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(settings, indent=1) + "\n").encode())
        return
    cure = "choose another folder with --out"
    before = typed(read_json(path, cure=cure), dict[str, Any], f"{path} is damaged, {cure}")
    now = json.loads(json.dumps(settings))
    changed = [
        f"{name} was {_as_text(before.get(name))} and is {_as_text(now.get(name))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise UsageError(
            f"{folder} holds an evaluation with other settings: {'; '.join(changed)}. Go on with those, or "
            "begin another one with --out"
        )


def _as_text(value: object) -> str:
    return "nothing" if value is None else json.dumps(value)


def _read_tasks(file: Path) -> Iterator[TaskAnswers]:
    """Read the tasks that one process finished; a last line without a line end was cut off."""
    with errors_about(file):
        lines = file.read_bytes().split(b"\n")
    cure = "delete the line, and its task is done again"
    for number, line in enumerate(lines[:-1], start=1):
        where = f"{file}, line {number},"
        yield typed(parse_json(line, where, cure), TaskAnswers, f"{where} is damaged, {cure}")
