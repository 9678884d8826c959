"""The files of a cache, in folders that other users may write into: no link is followed, nothing foreign deleted.

<cache>/<name>-<16 digits of a hash of the URL>/<size>/shard-000000.tar
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.errors import UsageError
from pipeline.store.files import OpenFile

FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
FILE_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
MOST_OPEN_FOLDERS: Final = 32  # at once: ten datasets at three sizes
FILE_MODE: Final = 0o644
LINK_ERRORS: Final = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)  # of a link, of one to a folder, of a socket
STAT_BLOCK_BYTES: Final = 512  # the unit of st_blocks, whatever the file system's own
NAME_CHARACTERS: Final = 100  # of a URL's last part: file systems allow 255 bytes in all
UNUSUAL: Final = re.compile(r"[^\w.-]", re.ASCII)
DATASET_FOLDER: Final = re.compile(r".*-[0-9a-f]{16}")
SIZE_FOLDER: Final = re.compile(r"[0-9]{1,9}")
SHARD_FILE: Final = re.compile(r"shard-([0-9]{6,9})\.tar")


class CacheFile(NamedTuple):
    """A file that an earlier run left in a cache."""

    path: Path
    shard: int
    bytes: int
    """On disk: holes are free."""
    used: int
    """When it was last used, in nanoseconds."""


def dataset_folder(cache: Path, url: str) -> Path:
    """The folder of the dataset behind a URL."""
    name = UNUSUAL.sub("_", url.rstrip("/").rpartition("/")[2])[:NAME_CHARACTERS]
    return cache / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"


class CacheFolders:
    """The folders of one cache, which are opened one inside the other, so that no link is followed, and kept.

    The cache itself may be a link: the user named it.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._open: dict[Path, OpenFile] = {}

    def open_file(self, path: Path) -> int:
        """Open a file to read and write; make it, and its folders, where they are not.

        A link, a pipe or a file that has another name too is deleted and made anew: writing into it would
        write elsewhere. Raises UsageError for what cannot be made anew, OSError.
        """
        with self._lock:
            try:
                return _open_file(path, self._folder(path.parent).fd)
            except FileNotFoundError:  # somebody deleted the folder
                self._open.clear()
                return _open_file(path, self._folder(path.parent).fd)

    def delete_file(self, path: Path) -> None:
        """Delete a file, if it is there and may be deleted."""
        with self._lock, suppress(OSError, UsageError):
            os.unlink(path.name, dir_fd=self._folder(path.parent).fd)

    def make(self, folder: Path) -> None:
        """Make a folder. Raises UsageError if a link or a file is in its place, OSError."""
        with self._lock:
            self._folder(folder)

    def close(self) -> None:
        """Close the folders; they are opened again when they are needed."""
        with self._lock:
            self._open.clear()

    def _folder(self, folder: Path) -> OpenFile:
        """A folder of the cache, or the cache itself, opened."""
        if folder not in self._open:
            if len(self._open) >= MOST_OPEN_FOLDERS:
                self._open.clear()
            if folder == self._cache:
                folder.mkdir(parents=True, exist_ok=True)
                opened = OpenFile(os.open(folder, FOLDER_FLAGS))
            else:
                opened = OpenFile(_open_subfolder(folder, self._folder(folder.parent).fd))
            self._open[folder] = opened
        return self._open[folder]


def _open_subfolder(folder: Path, parent: int) -> int:
    try:
        with suppress(FileExistsError):
            os.mkdir(folder.name, dir_fd=parent)
        return os.open(folder.name, FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if error.errno not in LINK_ERRORS:
            error.filename = str(folder)
            raise
        raise UsageError(
            f"{folder} is a link or a file, and the cache writes into folders of its own; delete it, or name "
            "another folder (cache)"
        ) from error


def _open_file(path: Path, folder: int) -> int:
    handle = _open_own_file(path, folder)
    if handle is None:
        os.unlink(path.name, dir_fd=folder)
        handle = _open_own_file(path, folder)
    if handle is None:
        raise OSError(errno.EEXIST, "another process puts links into the cache", str(path))
    return handle


def _open_own_file(path: Path, folder: int) -> int | None:
    """Open, or make, a file of this folder; None if its name leads elsewhere."""
    try:
        handle = os.open(path.name, FILE_FLAGS, FILE_MODE, dir_fd=folder)
    except IsADirectoryError as error:
        raise UsageError(
            f"{path} is a folder, and the cache keeps a file of that name; delete it, or name another "
            "folder (cache)"
        ) from error
    except OSError as error:
        if error.errno in LINK_ERRORS:
            return None
        error.filename = str(path)
        raise
    state = os.fstat(handle)
    if stat.S_ISREG(state.st_mode) and state.st_nlink <= 1:
        return handle
    os.close(handle)
    return None


def list_cache_files(cache: Path) -> list[CacheFile]:
    """The files that earlier runs left, least recently used first; nothing behind a link."""
    found: list[CacheFile] = []
    for dataset in _subfolders(cache, DATASET_FOLDER):
        for size in _subfolders(dataset, SIZE_FOLDER):
            for entry in _entries(size):
                name = SHARD_FILE.fullmatch(entry.name)
                if name and entry.is_file(follow_symlinks=False):
                    found += _cache_file(entry, int(name[1]))
    return sorted(found, key=lambda file: (file.used, file.path))


def _cache_file(entry: os.DirEntry[str], shard: int) -> Iterator[CacheFile]:
    with suppress(FileNotFoundError):  # another process made room
        state = entry.stat(follow_symlinks=False)
        used = max(state.st_atime_ns, state.st_mtime_ns)
        yield CacheFile(Path(entry.path), shard, state.st_blocks * STAT_BLOCK_BYTES, used)


def _subfolders(folder: Path, names: re.Pattern[str]) -> Iterator[Path]:
    for entry in _entries(folder):
        if names.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, PermissionError):  # no cache yet; another user's
        return []
