"""Finds VTAB's datasets on disk: folders that TFDS has prepared, or the original files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.errors import first_few
from pipeline.sources.vtab.tasks import VTAB_TASKS, Protocol, RawFile, VtabTask
from pipeline.sources.vtab.tfds_folder import PreparedFolder, find_prepared

PREPARED_FOLDER: Final = "tfds"  # below the source's or the scratch folder, for converted datasets
GB: Final = 1e9


class MissingTask(NamedTuple):
    """What to download for a task of which nothing usable was found."""

    task: str
    files: tuple[RawFile, ...]
    """Those that are not there."""
    bytes: int
    prepared: str
    """The folder that would do instead, from a run of TFDS elsewhere."""
    looked_in: tuple[Path, ...]

    def __str__(self) -> str:
        names = [file.name for file in self.files]
        urls = dict.fromkeys(file.url for file in self.files)
        by_hand = dict.fromkeys(file.manual for file in self.files if file.manual)
        return (
            f"{self.task} needs {first_few(names)} ({self.bytes / GB:.2f} GB) from "
            f"{first_few(list(urls))}"
            f"{' (' + ', '.join(by_hand) + ')' if by_hand else ''}, "
            f"or {self.prepared} as TFDS prepares it; "
            f"looked in {', '.join(map(str, self.looked_in))}"
        )


def needed_configurations(task: VtabTask, protocol: Protocol) -> tuple[str, ...]:
    """The configurations of the TFDS builder that are needed (retinopathy: two)."""
    vtab, lite = task.config, task.lite_config
    return tuple(dict.fromkeys({"vtab": (vtab,), "lite": (lite,), "both": (vtab, lite)}[protocol]))


def prepared_folders(
    root: Path, task: VtabTask, protocol: Protocol, scratch: Path | None = None
) -> dict[str, PreparedFolder]:
    """The prepared folders that are there, by configuration."""
    bases = [root, root / PREPARED_FOLDER, root / task.name]
    bases += [scratch / PREPARED_FOLDER] if scratch else []
    folders = {
        config: find_prepared(bases, task.builder, config, task.versions)
        for config in needed_configurations(task, protocol)
    }
    return {config: folder for config, folder in folders.items() if folder is not None}


def raw_folder(root: Path, task: VtabTask) -> Path | None:
    """The folder that has all files which the TFDS builder reads."""
    for folder in _raw_folders(root, task):
        if not _absent_files(folder, task):
            return folder
    return None


def is_available(root: Path, task: VtabTask, protocol: Protocol = "both") -> bool:
    """Whether the task can be built from the files in the folder."""
    prepared = prepared_folders(root, task, protocol)
    return len(prepared) == len(needed_configurations(task, protocol)) or bool(raw_folder(root, task))


def missing_tasks(
    root: Path, tasks: Iterable[VtabTask] = tuple(VTAB_TASKS.values()), protocol: Protocol = "both"
) -> tuple[MissingTask, ...]:
    """What to download for each task that is not available."""
    return tuple(_missing_task(root, task) for task in tasks if not is_available(root, task, protocol))


def _missing_task(root: Path, task: VtabTask) -> MissingTask:
    folders = _raw_folders(root, task)
    absent = min((_absent_files(folder, task) for folder in folders), key=len)
    versions = " or ".join(f"{version}*" for version in task.versions)
    title = "/".join(filter(None, (task.builder, task.config, versions)))
    looked_in = (*folders, root / PREPARED_FOLDER)
    return MissingTask(task.name, absent, sum(file.bytes for file in absent), title, looked_in)


def _raw_folders(root: Path, task: VtabTask) -> tuple[Path, ...]:
    return tuple(dict.fromkeys((root, root / task.name, root / task.builder)))


def _absent_files(folder: Path, task: VtabTask) -> tuple[RawFile, ...]:
    return tuple(
        file
        for file in task.raw
        if not ((folder / file.name).is_dir() if file.name.endswith("/") else (folder / file.name).is_file())
    )
