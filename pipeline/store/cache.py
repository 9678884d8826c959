"""The cache: for each remote tar a sparse local file that has the same bytes at the same offsets.

No list says which bytes are there. A hole, or what a crash or another version left, fails its crc32 like
any other damage, and is downloaded. So any number of processes may share a cache.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import IntegrityError, SourceMissing, full_disk_is
from pipeline.store.cache_folders import STAT_BLOCK_BYTES, CacheFolders, list_cache_files
from pipeline.store.files import FilePool, ShardKey
from pipeline.store.local import LocalStore, OpenShard, SampleLocations

PAGE_BYTES: Final = 4096  # a write takes whole pages


@dataclass(slots=True)
class CachedShard:
    """The local file of one remote tar."""

    path: Path
    bytes: int = 0
    """On disk: holes are free."""
    announced: int = 0
    """Samples that were announced and not read yet."""


class ShardCache:
    """All files of a cache folder; those not used lately go when it exceeds `limit` bytes.

    Files with samples that were announced and not read stay, even if the cache then exceeds its limit.
    """

    def __init__(self, folder: Path, limit: int, on_evict: Callable[[ShardKey], None]) -> None:
        self._folder = folder
        self._limit = limit
        self._on_evict = on_evict
        """Called with the key of a file that was deleted."""
        self._lock = threading.Lock()
        self._folders = CacheFolders(folder)
        self._files = FilePool(self._folders.open_file)
        self._local = LocalStore(self._files)
        self._shards = {
            (str(file.path.parent), file.shard): CachedShard(file.path, file.bytes)
            for file in list_cache_files(folder)
        }
        """Least recently used first."""
        self._bytes = sum(shard.bytes for shard in self._shards.values())
        self._reserved = 0
        """Bytes, at most, of the writes under way."""

    def read(self, locations: SampleLocations, at: int, buffers: Sequence[memoryview]) -> bool:
        """Read a sample into the buffers, verified. Returns whether the cache has it."""
        try:
            self._local.read(locations, at, buffers)
        except (IntegrityError, SourceMissing):
            return False
        return True

    def open_shards(self, locations: SampleLocations, begin: int, end: int) -> dict[int, OpenShard]:
        """Open the files of these samples; what is not in the cache is a hole in them."""
        return self._local.open_shards(locations, begin, end)

    def announce(self, locations: SampleLocations) -> None:
        """Keep the files of these samples until each sample was read."""
        with self._lock:
            for number, count in Counter(locations.shards).items():
                path = locations.dataset.tar(locations.size, number)
                self._touch((locations.folder, number), path).announced += count

    def release(self, key: ShardKey) -> None:
        """Note that one announced sample of a file was read, or cannot be."""
        with self._lock:
            shard = self._shards.get(key)
            if shard and shard.announced:
                shard.announced -= 1

    def write(self, key: ShardKey, path: Path, offset: int, data: bytes) -> None:
        """Keep bytes of a tar. Raises OutOfSpace, OSError."""
        most = len(data) + 2 * PAGE_BYTES
        with self._lock:
            self._touch(key, path)
            self._reserved += most
            self._make_room(key)
        full = (
            f"the disk of {self._folder} is full and the cache may grow to {self._limit:,} bytes; "
            "free some space, name another folder (cache) or a smaller limit (cache_bytes)"
        )
        try:
            with full_disk_is(full):
                on_disk = self._write_file(key, path, offset, data)
        finally:
            with self._lock:
                self._reserved -= most
        with self._lock:
            shard = self._touch(key, path)  # it may have gone to make room, and come again
            self._bytes += on_disk - shard.bytes
            shard.bytes = on_disk

    def close(self) -> None:
        self._files.close()
        self._folders.close()

    def _write_file(self, key: ShardKey, path: Path, offset: int, data: bytes) -> int:
        """Write into the local file of a tar. Returns how many bytes it has on disk after that."""
        while True:
            file = self._files.get(key, path)
            written = 0
            while written < len(data):
                written += os.pwrite(file.fd, data[written:], offset + written)
            state = os.fstat(file.fd)
            if state.st_nlink:
                return state.st_blocks * STAT_BLOCK_BYTES
            self._files.drop(key)  # another process deleted it to make room: write into a new file

    def _touch(self, key: ShardKey, path: Path) -> CachedShard:
        """Make this file the last to be evicted."""
        shard = self._shards.pop(key, None) or CachedShard(path)
        self._shards[key] = shard
        return shard

    def _make_room(self, keep: ShardKey) -> None:
        for key, shard in list(self._shards.items()):
            if self._bytes + self._reserved <= self._limit:
                return
            if key != keep and not shard.announced and shard.bytes:
                self._folders.delete_file(shard.path)
                self._files.drop(key)
                self._bytes -= shard.bytes
                del self._shards[key]
                self._on_evict(key)
