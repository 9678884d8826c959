"""Where VTAB's datasets lie: folders that TFDS has prepared, original files, or nothing yet."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.sources.vtab.tasks import TASKS, Protocol, RawFile, Task
from pipeline.sources.vtab.tfds_folder import PreparedFolder, find_prepared

PREPARED: Final = "tfds"  # folder, below the source or the scratch folder, for what we convert
GB: Final = 1e9
FEW: Final = 3  # names that a message lists


class Missing(NamedTuple):
    """What to get for a task of which nothing usable was found."""

    task: str
    files: tuple[RawFile, ...]
    """Those that are not there yet."""
    bytes: int
    prepared: str
    """What would do instead: this folder, from a run of TFDS elsewhere."""
    looked_in: tuple[Path, ...]

    def __str__(self) -> str:
        names = [file.name for file in self.files[:FEW]]
        names += [f"{len(self.files) - FEW} more"] if len(self.files) > FEW else []
        urls = dict.fromkeys(file.url for file in self.files)
        by_hand = dict.fromkeys(file.manual for file in self.files if file.manual)
        return (
            f"{self.task} needs {', '.join(names)} ({self.bytes / GB:.2f} GB) from "
            f"{' and '.join(list(urls)[:FEW])}"
            f"{' (' + ', '.join(by_hand) + ')' if by_hand else ''}, "
            f"or {self.prepared} as TFDS prepares it; "
            f"looked in {', '.join(map(str, self.looked_in))}"
        )


def configurations(task: Task, protocol: Protocol) -> tuple[str, ...]:
    """The configurations of the builder whose records are needed (retinopathy: two)."""
    vtab, lite = task.config, task.lite_config
    return tuple(dict.fromkeys({"vtab": (vtab,), "lite": (lite,), "both": (vtab, lite)}[protocol]))


def prepared_folders(
    root: Path, task: Task, protocol: Protocol, scratch: Path | None = None
) -> dict[str, PreparedFolder]:
    """By configuration, those that are there."""
    bases = [root, root / PREPARED, root / task.name]
    bases += [scratch / PREPARED] if scratch else []
    folders = {
        config: find_prepared(bases, task.builder, config, task.versions)
        for config in configurations(task, protocol)
    }
    return {config: folder for config, folder in folders.items() if folder is not None}


def raw_folder(root: Path, task: Task) -> Path | None:
    """The folder in which all files lie that the builder reads."""
    for folder in _raw_folders(root, task):
        if not _absent(folder, task):
            return folder
    return None


def found(root: Path, task: Task, protocol: Protocol = "both") -> bool:
    """Whether the task can be built from what lies in the folder."""
    prepared = prepared_folders(root, task, protocol)
    return len(prepared) == len(configurations(task, protocol)) or bool(raw_folder(root, task))


def missing(
    root: Path, tasks: Iterable[Task] = tuple(TASKS.values()), protocol: Protocol = "both"
) -> tuple[Missing, ...]:
    """A row for each task that is not found."""
    return tuple(_missing(root, task) for task in tasks if not found(root, task, protocol))


def _missing(root: Path, task: Task) -> Missing:
    folders = _raw_folders(root, task)
    absent = min((_absent(folder, task) for folder in folders), key=len)
    versions = " or ".join(f"{version}*" for version in task.versions)
    title = "/".join(filter(None, (task.builder, task.config, versions)))
    looked_in = (*folders, root / PREPARED)
    return Missing(task.name, absent, sum(file.bytes for file in absent), title, looked_in)


def _raw_folders(root: Path, task: Task) -> tuple[Path, ...]:
    return tuple(dict.fromkeys((root, root / task.name, root / task.builder)))


def _absent(folder: Path, task: Task) -> tuple[RawFile, ...]:
    return tuple(
        file
        for file in task.raw
        if not (
            (folder / file.name).is_dir()
            if file.name.endswith("/")
            else (folder / file.name).is_file()
        )
    )
