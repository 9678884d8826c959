"""Open files, few at a time and shared by threads, and reading them into the caller's buffers.

A file that shrinks is a short read. Under a mapping it would be the end of the process, so mapping is a
choice (`pipeline/store/mapped.py`).
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypeAlias

try:  # three to eight times faster on pictures than zlib's, and the same numbers
    from isal import isal_zlib as checksums
except ImportError:
    import zlib as checksums  # type: ignore[no-redef]

crc32 = checksums.crc32
Key: TypeAlias = "tuple[str, int]"  # a folder and a shard's number: cheaper to hash than a path

MOST_FILES: Final = 64  # open at once; more does not pay, and `ulimit -n 256` must do
SHARE_OF_FILES: Final = 4  # at most one in so many of the descriptors that the process may have


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


class Files:
    """A bounded number of open tars; the ones not used lately make room."""

    def __init__(
        self, flags: int = os.O_RDONLY, most: int = 0, kind: type[OpenFile] = OpenFile
    ) -> None:
        self._flags = flags | os.O_CLOEXEC
        self._kind = kind
        self._most = most or most_files()
        self._lock = threading.Lock()
        self.open: dict[Key, OpenFile] = {}
        """Readers look here without the lock, and mark what they use as recent."""

    def get(self, key: Key, path: Path) -> OpenFile:
        """The file at `path`, which always has this key. Raises OSError."""
        with self._lock:
            file = self.open.get(key)
            if file is not None:
                file.recent = True
                return file
            self._make_room()
            file = self.open[key] = self._kind(os.open(path, self._flags, 0o644))
            return file

    def _make_room(self) -> None:
        """The oldest goes, unless it was used since it was last the oldest."""
        while len(self.open) >= self._most:
            key = next(iter(self.open))
            file = self.open.pop(key)
            if file.recent:
                file.recent = False
                self.open[key] = file

    def drop(self, key: Key) -> None:
        """Open it anew next time."""
        with self._lock:
            self.open.pop(key, None)

    def close(self) -> None:
        """Forget all; a later `get` opens again."""
        with self._lock:
            self.open.clear()


def most_files() -> int:
    """How many may be open at once, within what the process may have."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return MOST_FILES
    return max(1, min(MOST_FILES, soft // SHARE_OF_FILES))


def read_on(fd: int, buffers: Sequence[memoryview], offset: int, found: int) -> int:
    """Go on after a read that ended early, as on network disks; how many bytes there are."""
    skip = found
    for buffer in buffers:
        here, skip = min(skip, len(buffer)), max(0, skip - len(buffer))
        while here < len(buffer):
            data = os.pread(fd, len(buffer) - here, offset + found)
            if not data:
                return found
            buffer[here : here + len(data)] = data
            here += len(data)
            found += len(data)
    return found


def read_plainly(fd: int, buffers: Sequence[memoryview], offset: int, /) -> int:
    """`os.preadv` for systems without it."""
    return read_on(fd, buffers, offset, 0)


preadv = os.preadv if hasattr(os, "preadv") else read_plainly
