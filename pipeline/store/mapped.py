"""Samples' bytes without a copy: shards on a local disk, mapped into memory.

Users choose this by name, for speed, since a mapping cannot report a failure: where a file is cut short, or
a network disk stops answering, while a thread looks at that very part of it, the system kills the process
(SIGBUS). `LocalStore` reports both. Building and repairing shards renames whole files, which is safe here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from mmap import ACCESS_READ, mmap
from typing import Final

from pipeline.errors import IntegrityError
from pipeline.store.files import FilePool, OpenFile, crc32, open_file_limit
from pipeline.store.local import LocalStore, OpenShard, SampleLocations, damaged_error, unreadable_error

DESCRIPTORS_PER_FILE: Final = 2  # the file's own, and the one that its mapping keeps


class MappedFile(OpenFile):
    """An open file with a view of its bytes, which stay mapped while anybody holds the view."""

    __slots__ = ("_map", "_view")

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._map: mmap | None = None
        self._view = memoryview(b"")

    def view(self, *, now: bool = True) -> memoryview:
        """All bytes of the file: those it has now, or had when it was mapped. Raises OSError."""
        view = self._view
        if self._map is None or (now and self._map.size() != len(view)):
            view = self._view = self._map_whole()
        return view

    def _map_whole(self) -> memoryview:
        try:
            self._map = mmap(self.fd, 0, access=ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            self._map = None
            return memoryview(b"")
        return memoryview(self._map)


class MappedStore(LocalStore):
    """Lends views of samples where `LocalStore` copies them; errors are the same."""

    def __init__(self, files: FilePool | None = None) -> None:
        """`files`, if given, makes files of the kind MappedFile."""
        most = open_file_limit() // DESCRIPTORS_PER_FILE
        super().__init__(files or FilePool(most=most, kind=MappedFile))

    def views(
        self, locations: SampleLocations, positions: Sequence[int]
    ) -> Iterator[memoryview | IntegrityError]:
        """The samples at these positions, crc32 verified; for a damaged one the error.

        A file's length is looked at when its first sample comes, so take few at a time, and soon. Raises
        SourceMissing.
        """
        last, shard = -1, memoryview(b"")
        for at in positions:
            if locations.shards[at] != last:
                try:
                    last, shard = locations.shards[at], self._shard_bytes(locations, at)
                except IntegrityError as error:
                    yield error
                    continue
            begin = locations.offsets[at]
            data = shard[begin : begin + locations.lengths[at]]
            if crc32(data) == locations.crcs[at]:
                yield data
            else:
                self.files.drop((locations.folder, last))
                last = -1  # it may be repaired before the next one is read
                yield damaged_error(locations, at, len(data))

    def _shard_bytes(self, locations: SampleLocations, at: int) -> memoryview:
        """All bytes that the file of a sample has now."""
        try:
            return self._mapped(locations, locations.shards[at]).view()
        except OSError as error:
            self.files.drop((locations.folder, locations.shards[at]))
            raise unreadable_error(error, locations, at) from error

    def _mapped(self, locations: SampleLocations, shard: int) -> MappedFile:
        file = self._file(locations, shard)
        assert isinstance(file, MappedFile)
        return file

    def _open_shard(self, locations: SampleLocations, shard: int) -> OpenShard:
        file = self._mapped(locations, shard)
        return file, file.view(now=False)

    def read(self, locations: SampleLocations, at: int, buffers: Sequence[memoryview]) -> None:
        """Copy a sample, for callers that need their own bytes."""
        (data,) = self.views(locations, [at])
        if isinstance(data, IntegrityError):
            raise data
        for buffer in buffers:
            buffer[:], data = data[: len(buffer)], data[len(buffer) :]
