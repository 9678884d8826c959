"""Files that are written completely or not at all, and what killed processes leave of them."""

from __future__ import annotations

import errno
import io
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Final

from pipeline.constants import READ_BLOCK
from pipeline.errors import add_file_name, errors_about

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY_PREFIX: Final = ".tmp-"
NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
"""The errors of file systems without hard links (FAT, some network shares)."""
NO_FOLDER_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EACCES, errno.EROFS})
"""The errors of file systems that cannot sync folders, and of folders that may not be read or written."""
ABANDONED_SECONDS: Final = 86_400.0
"""The age from which another machine's unlocked temporary file is abandoned: none is written for a day."""
NOT_OURS_TO_REMOVE: Final = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ELOOP, errno.ENXIO}
)
"""The errors of temporary files that are gone, belong to others or are no files, and of read-only folders."""
HOST_NAME: Final = "".join(c if c.isalnum() else "-" for c in socket.gethostname()) or "host"


@lru_cache
def kernel_name() -> str:
    """A name that all containers of a machine share until it starts again, and no other machine has."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    except OSError:  # only Linux has it
        return HOST_NAME


def temporary_path(target: Path) -> Path:
    """A path beside `target` that no other process on any machine chooses."""
    return target.with_name(f"{TEMPORARY_PREFIX}{kernel_name()}-{uuid.uuid4().hex[:12]}-{target.name}")


class NamedWriter(io.FileIO):
    """A new file whose errors name the file that it is to become: those of the system's writes name none."""

    def __init__(self, path: Path, target: Path) -> None:
        self._target = target
        try:
            super().__init__(path, "x")
        except OSError as error:
            error.filename = str(target)
            raise

    def write(self, data: Any, /) -> int:  # typeshed asks for a Buffer, which Python 3.10 does not have
        try:
            return super().write(data)
        except OSError as error:
            add_file_name(error, self._target)
            raise


class PartialFile:
    """A file that is written under a temporary name, and gets its own by `publish`; without that it is removed.

    It is locked until it is closed. The system unlocks the files of a process that dies, so that a temporary
    file without a lock is one that nobody writes any more.
    """

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> PartialFile:
        while True:
            self._path = temporary_path(self._target)
            self.handle = io.BufferedWriter(NamedWriter(self._path, self._target), READ_BLOCK)
            try:
                locked = lock_file(self.handle.fileno())
                if locked is not False and os.fstat(self.handle.fileno()).st_nlink:
                    return self
            except BaseException:
                self._remove()
                raise
            self._remove()  # another process found it in the instant before the lock, and removes it

    def __exit__(self, *_: object) -> None:
        self._remove()

    def publish(self, *, first: bool = False) -> None:
        """Complete the file and give it its name, durably.

        With `first`, a file that already has the name stays.
        """
        with errors_about(self._target):
            self.handle.flush()
            os.fsync(self.handle.fileno())
            if first:
                _name_if_free(self._path, self._target)
            else:
                self._path.replace(self._target)
            sync_folder(self._target.parent)

    def _remove(self) -> None:
        """Remove the temporary name; where that fails, `remove_leftovers` of the next command does it.

        Before the close, which writes what is still buffered and so fails on a full disk.
        """
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self.handle.close()


@contextmanager
def atomic_file(target: Path, *, first: bool = False) -> Iterator[IO[bytes]]:
    """Write a file completely or not at all; after the block it has its name, durably.

    With `first`, a file that already has the name stays. Errors say which file they are about.
    """
    with PartialFile(target) as partial:
        yield partial.handle
        partial.publish(first=first)


def lock_file(handle: int) -> bool | None:
    """Lock an open file; False if another process holds it, None where the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):
        return None
    return True


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


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, durably: a power cut must not take the folder of synced files.

    Also where it is there already: who created it may have been killed before he could sync it.
    """
    if not folder.parent.is_dir():
        make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make the file names of a folder durable."""
    if os.name != "posix":
        return
    try:
        with errors_about(folder):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def write_atomically(target: Path, data: bytes) -> None:
    """Write a small file completely or not at all."""
    with atomic_file(target) as handle:
        handle.write(data)


def remove_leftovers(root: Path) -> None:
    """Remove the temporary files that dead processes left in a folder and in the folders in it."""
    for folder in (root, *(child for child in root.iterdir() if child.is_dir())):
        for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
            try:
                _remove_abandoned(file)
            except OSError as error:
                if error.errno not in NOT_OURS_TO_REMOVE:
                    raise


def _remove_abandoned(file: Path) -> None:
    """Remove a temporary file that nobody holds, and hold it until it is gone.

    All processes of a machine see each other's locks, machines that share a folder may not: the files of
    others, and those from before this machine's last start, must be old as well.
    """
    handle = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))  # shares lock only what can be written
    try:
        locked, about = lock_file(handle), os.fstat(handle)
        surely = locked and file.name.startswith(f"{TEMPORARY_PREFIX}{kernel_name()}-")
        if locked is not False and (surely or time.time() - about.st_mtime > ABANDONED_SECONDS):
            file.unlink(missing_ok=True)
    finally:
        os.close(handle)
