"""The names of the files of a built dataset, in one place.

<root>/dataset.json            the manifest; it appears last, so its presence means "complete"
<root>/index.parquet           one row per sample
<root>/<size>/shard-000000.tar, shard-000000.idx, wids.json
<root>/.build/                 plan and commit records: what a resume or a repair starts from
"""

from __future__ import annotations

import errno
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TEMPORARY = ".tmp-"
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""What file systems without hard links (FAT, some network shares) say."""
HOST = "".join(c if c.isalnum() else "-" for c in socket.gethostname()) or "host"


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything of one dataset lies."""

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
    """What the members of a sample are called, up to the dot."""
    return f"{key:09d}"


def temporary(target: Path) -> Path:
    """A name beside `target` that no other process, here or elsewhere, will choose."""
    unique = f"{TEMPORARY}{HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    return target.with_name(f"{unique}-{target.name}")


@contextmanager
def whole_file(target: Path, *, first: bool = False) -> Iterator[IO[bytes]]:
    """Write a file completely or not at all: it has its name, durably, when the block has ended.

    With `first`, a file that already has the name stays. Errors say which file they are about.
    """
    partial = temporary(target)
    try:
        with partial.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        publish(partial, target, first=first)
    except OSError as error:
        named(error, target)
        raise
    finally:
        partial.unlink(missing_ok=True)


def named(error: OSError, path: Path) -> None:
    """Tell the error which file it is about: a failed write or sync does not say."""
    if error.errno is not None and error.filename is None:
        error.filename = str(path)


def publish(partial: Path, target: Path, *, first: bool = False) -> None:
    """Give a complete, synced file its name; durable when this returns."""
    if first:
        _name_if_free(partial, target)
    else:
        partial.replace(target)
    sync_folder(target.parent)


def _name_if_free(partial: Path, target: Path) -> None:
    """A link, unlike a rename, does not replace what another process has made."""
    try:
        os.link(partial, target)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        partial.replace(target)  # rarer than such a disk: two builders in one instant


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(target: Path, data: bytes) -> None:
    """Write a small file completely or not at all."""
    with whole_file(target) as handle:
        handle.write(data)


def sweep(root: Path) -> None:
    """Remove what processes of this machine that no longer live left behind."""
    for folder in (root, *(child for child in root.iterdir() if child.is_dir())):
        for file in folder.glob(f"{TEMPORARY}{HOST}-*"):
            process = file.name.removeprefix(f"{TEMPORARY}{HOST}-").split("-", 1)[0]
            if process.isdigit() and not _alive(int(process)):
                file.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    """Whether a process of this machine still runs; one that is dead but not yet buried does not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    with suppress(OSError):  # only Linux has this file
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return True
