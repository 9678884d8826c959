"""A bounded pool of open files that threads share, and reads that fill the caller's buffers.

Files are read, not mapped: one that shrinks is then a short read, where a mapping would end the process.
Mapping is a choice, in `pipeline/store/mapped.py`.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from pipeline.foreign_files import READ_FLAGS

try:  # three to eight times faster than zlib on encoded images, and the same numbers
    from isal import isal_zlib as checksums
except ImportError:
    import zlib as checksums  # type: ignore[no-redef]

crc32 = checksums.crc32
ShardKey: TypeAlias = "tuple[str, int]"
"""A shard's folder and number: cheaper to hash than a path."""

MOST_OPEN_FILES: Final = 64  # at once; more does not pay, and `ulimit -n 256` must do
DESCRIPTOR_SHARE: Final = 4  # a pool takes at most one in so many of the process's descriptors


PathOpener: TypeAlias = Callable[[Path], int]
"""Opens a file and returns its descriptor. Raises OSError."""


def open_to_read(path: Path) -> int:
    """Open a file to read it."""
    return os.open(path, READ_FLAGS)  # a pipe opens as well; reading it is an error, not a wait


class OpenFile:
    """A descriptor that closes when nobody holds it any more, so never under a reader."""

    __slots__ = ("fd", "recent")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.recent = False  # used again since it was opened, or since it was spared

    def fileno(self) -> int:
        return self.fd

    def __del__(self) -> None:
        os.close(self.fd)


class FilePool:
    """A bounded number of open tars; those not used lately make room for others."""

    def __init__(
        self, opener: PathOpener | None = None, most: int = 0, kind: type[OpenFile] = OpenFile
    ) -> None:
        """Open files by `opener`; the default opens to read."""
        self._opener = opener or open_to_read
        self._kind = kind
        self._most = most or open_file_limit()
        self._lock = threading.Lock()
        self.open: dict[ShardKey, OpenFile] = {}
        """Readers look here without the lock, and mark what they use as recent."""

    def get(self, key: ShardKey, path: Path) -> OpenFile:
        """Open the file at `path`, unless it is open; a path always has the same key. Raises OSError."""
        with self._lock:
            file = self.open.get(key)
            if file is not None:
                file.recent = True
                return file
            self._make_room()
            file = self.open[key] = self._kind(self._opener(path))
            return file

    def _make_room(self) -> None:
        """Drop the oldest file, unless it was used since it was last the oldest."""
        while len(self.open) >= self._most:
            key = next(iter(self.open))
            file = self.open.pop(key)
            if file.recent:
                file.recent = False
                self.open[key] = file

    def drop(self, key: ShardKey) -> None:
        """Forget a file, so that the next `get` opens it anew."""
        with self._lock:
            self.open.pop(key, None)

    def close(self) -> None:
        """Forget all files; a later `get` opens them again."""
        with self._lock:
            self.open.clear()


def open_file_limit() -> int:
    """How many files a pool may have open, within what the process may have."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return MOST_OPEN_FILES
    return max(1, min(MOST_OPEN_FILES, soft // DESCRIPTOR_SHARE))


def continue_read(fd: int, buffers: Sequence[memoryview], offset: int, received: int) -> int:
    """Go on with a read that ended early, as on network disks. Returns the bytes read in all."""
    skip = received
    for buffer in buffers:
        here, skip = min(skip, len(buffer)), max(0, skip - len(buffer))
        while here < len(buffer):
            data = os.pread(fd, len(buffer) - here, offset + received)
            if not data:
                return received
            buffer[here : here + len(data)] = data
            here += len(data)
            received += len(data)
    return received


def preadv_fallback(fd: int, buffers: Sequence[memoryview], offset: int, /) -> int:
    """`os.preadv` for systems without it."""
    return continue_read(fd, buffers, offset, 0)


preadv = os.preadv if hasattr(os, "preadv") else preadv_fallback
