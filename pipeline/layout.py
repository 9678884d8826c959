"""The file names of a built dataset, and writing a file completely or not at all.

<root>/dataset.json            the manifest; it appears last, so its presence means "complete"
<root>/index.parquet           one row per sample
<root>/<size>/shard-000000.tar, shard-000000.idx, wids.json
<root>/.build/                 plan and commit records, from which a build resumes and a repair starts
"""

from __future__ import annotations

import errno
import io
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np

TEMPORARY_PREFIX = ".tmp-"
NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""The errors of file systems without hard links (FAT, some network shares)."""
HOST_NAME = "".join(c if c.isalnum() else "-" for c in socket.gethostname()) or "host"


@dataclass(frozen=True, slots=True)
class DatasetLayout:
    """The paths of one dataset."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "dataset.json"

    @property
    def index(self) -> Path:
        return self.root / "index.parquet"

    @property
    def work(self) -> Path:
        return self.root / ".build"

    @property
    def scratch(self) -> Path:
        return self.work / "scratch"

    @property
    def plan(self) -> Path:
        return self.work / "plan.parquet"

    def commit(self, shard: int) -> Path:
        return self.work / f"shard-{shard:06d}.parquet"

    def tar(self, size: int, shard: int) -> Path:
        return self.root / str(size) / f"shard-{shard:06d}.tar"

    def wids(self, size: int) -> Path:
        return self.root / str(size) / "wids.json"


def key_text(key: int) -> str:
    """The names of a sample's members, up to the dot."""
    return f"{key:09d}"


@lru_cache
def npy_header(width: int, height: int) -> bytes:
    """The bytes that numpy writes before the pixels of an RGB image, in a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.empty((height, width, 3), np.uint8), allow_pickle=False)
    return buffer.getvalue()[: -height * width * 3]


def temporary_path(target: Path) -> Path:
    """A path beside `target` that no other process on any machine chooses."""
    unique = f"{TEMPORARY_PREFIX}{HOST_NAME}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return target.with_name(f"{unique}-{target.name}")


@contextmanager
def atomic_file(target: Path, *, first: bool = False) -> Iterator[IO[bytes]]:
    """Write a file completely or not at all; after the block it has its name, durably.

    With `first`, a file that already has the name stays. Errors say which file they are about.
    """
    partial = temporary_path(target)
    try:
        with partial.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        publish(partial, target, first=first)
    except OSError as error:
        add_file_name(error, target)
        raise
    finally:
        partial.unlink(missing_ok=True)


def add_file_name(error: OSError, path: Path) -> None:
    """Add the path to an error of a write or a sync, which does not have it."""
    if error.errno is not None and error.filename is None:
        error.filename = str(path)


def publish(partial: Path, target: Path, *, first: bool = False) -> None:
    """Give a complete, synced file its final name, durably.

    With `first`, a file that already has the name stays.
    """
    if first:
        _name_if_free(partial, target)
    else:
        partial.replace(target)
    sync_folder(target.parent)


def _name_if_free(partial: Path, target: Path) -> None:
    """Name a file by a hard link: unlike a rename, it does not replace another process's file."""
    try:
        os.link(partial, target)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        partial.replace(target)  # replaces only if two builders come in one instant, which is rare


def sync_folder(folder: Path) -> None:
    """Make the file names of a folder durable."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(target: Path, data: bytes) -> None:
    """Write a small file completely or not at all."""
    with atomic_file(target) as handle:
        handle.write(data)


def remove_leftovers(root: Path) -> None:
    """Remove the temporary files of this machine's processes that no longer run."""
    for folder in (root, *(child for child in root.iterdir() if child.is_dir())):
        for file in folder.glob(f"{TEMPORARY_PREFIX}{HOST_NAME}-*"):
            process = file.name.removeprefix(f"{TEMPORARY_PREFIX}{HOST_NAME}-").split("-", 1)[0]
            if process.isdigit() and not _alive(int(process)):
                file.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process of this machine still runs; a zombie does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    with suppress(OSError):  # only Linux has this file
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
