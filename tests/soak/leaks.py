"""What a process or a session may leave behind: descriptors, threads, shared memory, files, orphans."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.kill import running_processes

SHARED_MEMORY: Final = Path("/dev/shm")
KILOBYTE: Final = 1024
LOOK_SECONDS: Final = 0.01  # between two looks at a process


@dataclass(frozen=True)
class HeldResources:
    """The resources that one process holds at a moment."""

    descriptors: int
    threads: int
    memory_mb: float
    """Without pages of files."""

    @classmethod
    def of(cls, process: int) -> HeldResources:
        own = Path(f"/proc/{process}")
        lines = (own / "status").read_text(encoding="utf-8").splitlines()
        kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
        descriptors, threads = (len(list((own / name).iterdir())) for name in ("fd", "task"))
        return cls(descriptors, threads, kilobytes / KILOBYTE)

    def grew_from(self, before: HeldResources) -> str:
        """Descriptors and threads that are held in addition, in words; "" if there are none."""
        more = {name: getattr(self, name) - getattr(before, name) for name in ("descriptors", "threads")}
        return ", ".join(f"{number} more {name}" for name, number in more.items() if number > 0)


def unused_shared_memory() -> set[str]:
    """Names of shared memory that no running process has open or maps: nobody will remove them."""
    every = (int(process.name) for process in Path("/proc").glob("[0-9]*"))
    return {str(entry) for entry in SHARED_MEMORY.iterdir()} - named_shared_memory(every)


def named_shared_memory(processes: Iterable[int]) -> set[str]:
    """The shared memory of processes that still has a name, and keeps it when they are killed."""
    return {path for process in processes for path in _shared_paths(Path(f"/proc/{process}"))}


def _shared_paths(process: Path) -> Iterator[str]:
    prefix = f"{SHARED_MEMORY}/"
    with suppress(OSError):  # it has ended, or is another user's
        for line in (process / "maps").read_text(encoding="utf-8", errors="replace").splitlines():
            if prefix in line and not line.endswith(" (deleted)"):
                yield line[line.index(prefix) :]
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                path = str(link.readlink())
                if path.startswith(prefix) and not path.endswith(" (deleted)"):
                    yield path


def files_in(folder: Path) -> list[str]:
    """Every file, socket and link below a folder, by its path in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def processor_seconds(group: int) -> float:
    """The processor time of a process group, and of its processes that have ended."""
    ticks = 0
    for process in running_processes(group):
        with suppress(OSError):
            fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_for_processor(process: subprocess.Popen[str], seconds: float) -> None:
    """Wait until a process and its group have taken so much processor time, or the process has ended.

    On a loaded machine they are then as far as on an idle one.
    """
    while process.poll() is None and processor_seconds(process.pid) < seconds:
        time.sleep(LOOK_SECONDS)


def processes_with(variable: str, value: str) -> set[int]:
    """The running processes that have a variable in their environment: ours, wherever they have gone."""
    wanted, found = f"{variable}={value}".encode(), set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            zombie = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
            if not zombie and wanted in (process / "environ").read_bytes().split(b"\0"):
                found.add(int(process.name))
    return found - {os.getpid()}
