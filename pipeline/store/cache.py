"""The cache: for each remote tar a sparse local file that has the same bytes at the same offsets.

Nothing says which bytes are there: a hole, or what a crash or another version left, fails its crc32
like any other damage, and is fetched. So any number of processes may share a cache.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import IntegrityError, OutOfSpace, SourceMissing
from pipeline.store.files import Files, Key
from pipeline.store.local import LocalStore, Source, Spots

BLOCK: Final = 512  # the unit of st_blocks, whatever the file system's own
PAGE: Final = 4096  # a write takes whole ones


@dataclass(slots=True)
class Mirror:
    """One local file."""

    path: Path
    bytes: int = 0
    """On disk: holes are free."""
    wanted: int = 0
    """Samples that were announced and not read yet."""


class Mirrors:
    """All files of a cache folder; those not used lately go when it exceeds `limit` bytes.

    Those with samples that were announced stay, even if the cache is too small for what is ahead.
    """

    def __init__(self, cache: Path, limit: int, forget: Callable[[Key], None]) -> None:
        self._cache = cache
        self._limit = limit
        self._forget = forget
        """Called with the key of a file that went."""
        self._lock = threading.Lock()
        self._files = Files(os.O_RDWR | os.O_CREAT)
        self._local = LocalStore(self._files)
        self._mirrors = _found(cache)
        self._bytes = sum(mirror.bytes for mirror in self._mirrors.values())
        self._expected = 0
        """Bytes, at most, of the writes under way."""

    def read(self, spots: Spots, at: int, buffers: Sequence[memoryview]) -> bool:
        """Whether the sample is here; then the buffers hold it, verified."""
        try:
            self._local.read(spots, at, buffers)
        except (IntegrityError, SourceMissing):
            return False
        return True

    def sources(self, spots: Spots, begin: int, end: int) -> dict[int, Source]:
        """The files; what is not here is a hole in them."""
        return self._local.sources(spots, begin, end)

    def announce(self, spots: Spots) -> None:
        """Keep these samples' files until each sample was read."""
        with self._lock:
            for shard, count in Counter(spots.shards).items():
                path = spots.dataset.tar(spots.size, shard)
                self._used((spots.folder, shard), path).wanted += count

    def done(self, key: Key) -> None:
        """One of the announced samples of a file was read, or cannot be."""
        with self._lock:
            mirror = self._mirrors.get(key)
            if mirror and mirror.wanted:
                mirror.wanted -= 1

    def write(self, key: Key, path: Path, offset: int, data: bytes) -> None:
        """Keep bytes of a tar. Raises OutOfSpace, OSError."""
        most = len(data) + 2 * PAGE
        with self._lock:
            self._used(key, path)
            self._expected += most
            self._make_room(key)
        try:
            blocks = self._written(key, path, offset, data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OutOfSpace(
                f"the disk of {self._cache} is full and the cache may grow to {self._limit:,} bytes; "
                "free some space, name another folder (cache) or a smaller limit (cache_bytes)"
            ) from error
        finally:
            with self._lock:
                self._expected -= most
        with self._lock:
            mirror = self._used(key, path)  # it may have gone to make room, and come again
            self._bytes += blocks - mirror.bytes
            mirror.bytes = blocks

    def close(self) -> None:
        self._files.close()

    def _written(self, key: Key, path: Path, offset: int, data: bytes) -> int:
        """Write; how many bytes the file has on disk after that."""
        while True:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = self._files.get(key, path)
            done = 0
            while done < len(data):
                done += os.pwrite(file.fd, data[done:], offset + done)
            found = os.fstat(file.fd)
            if found.st_nlink:
                return found.st_blocks * BLOCK
            self._files.drop(key)  # another process made room with it: into a new file, then

    def _used(self, key: Key, path: Path) -> Mirror:
        """The file, now the last to go."""
        mirror = self._mirrors.pop(key, None) or Mirror(path)
        self._mirrors[key] = mirror
        return mirror

    def _make_room(self, keep: Key) -> None:
        for key, mirror in list(self._mirrors.items()):
            if self._bytes + self._expected <= self._limit:
                return
            if key != keep and not mirror.wanted and mirror.bytes:
                mirror.path.unlink(missing_ok=True)
                self._files.drop(key)
                self._bytes -= mirror.bytes
                del self._mirrors[key]
                self._forget(key)


def _found(cache: Path) -> dict[Key, Mirror]:
    """What earlier runs left, least recently used first."""
    found = []
    for path in cache.glob("*/*/shard-*.tar"):
        with suppress(FileNotFoundError):  # another process made room
            state = path.stat()
            key = (str(path.parent), int(path.stem.removeprefix("shard-")))
            used = max(state.st_atime_ns, state.st_mtime_ns)
            found.append((used, key, Mirror(path, state.st_blocks * BLOCK)))
    return {key: mirror for _, key, mirror in sorted(found, key=lambda entry: entry[:2])}
