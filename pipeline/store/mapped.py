"""Samples' bytes where the system keeps them: shards on a local disk, mapped into memory.

A choice by name, for speed, for a mapping cannot fail: where a file is cut short, or a network disk
stops answering, while a thread looks at that very part of it, the system kills the process (SIGBUS).
`LocalStore` reports both. What builds and repairs shards renames whole files, which is safe here too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from mmap import ACCESS_READ, mmap
from typing import Final

from pipeline.errors import IntegrityError
from pipeline.store.files import Files, OpenFile, crc32, most_files
from pipeline.store.local import LocalStore, Source, Spots, damaged, unreadable

DESCRIPTORS: Final = 2  # of each file: its own, and the one that its mapping keeps


class MappedFile(OpenFile):
    """An open file whose bytes can be looked at. They stay mapped while anybody holds a view."""

    __slots__ = ("_map", "_view")

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._map: mmap | None = None
        self._view = memoryview(b"")

    def view(self, *, now: bool = True) -> memoryview:
        """As many bytes as the file has at this moment, or had when it was mapped. Raises OSError."""
        view = self._view
        if self._map is None or (now and self._map.size() != len(view)):
            view = self._view = self._whole()
        return view

    def _whole(self) -> memoryview:
        try:
            self._map = mmap(self.fd, 0, access=ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            self._map = None
            return memoryview(b"")
        return memoryview(self._map)


class MappedStore(LocalStore):
    """Lends bytes, where `LocalStore` copies them; says the same of samples that are not sound."""

    def __init__(self, files: Files | None = None) -> None:
        """`files`, if given, are of the kind MappedFile."""
        super().__init__(files or Files(most=most_files() // DESCRIPTORS, kind=MappedFile))

    def views(
        self, spots: Spots, positions: Sequence[int]
    ) -> Iterator[memoryview | IntegrityError]:
        """The samples at these positions, crc32 verified; for a faulty one what is wrong with it.

        A file's length is looked at when its first sample comes, so take few at a time, and soon. Raises
        SourceMissing.
        """
        last, shard = -1, memoryview(b"")
        for at in positions:
            if spots.shards[at] != last:
                try:
                    last, shard = spots.shards[at], self._shard(spots, at)
                except IntegrityError as error:
                    yield error
                    continue
            data = shard[spots.offsets[at] : spots.offsets[at] + spots.lengths[at]]
            if crc32(data) == spots.crcs[at]:
                yield data
            else:
                self.files.drop((spots.folder, last))
                last = -1  # it may be repaired before the next one is read
                yield damaged(spots, at, len(data))

    def _shard(self, spots: Spots, at: int) -> memoryview:
        """All bytes, by now, of the file that a sample lies in."""
        try:
            return self._mapped(spots, spots.shards[at]).view()
        except OSError as error:
            self.files.drop((spots.folder, spots.shards[at]))
            raise unreadable(error, spots, at) from error

    def _mapped(self, spots: Spots, shard: int) -> MappedFile:
        file = self._file(spots, shard)
        assert isinstance(file, MappedFile)
        return file

    def _source(self, spots: Spots, shard: int) -> Source:
        file = self._mapped(spots, shard)
        return file, file.view(now=False)

    def read(self, spots: Spots, at: int, buffers: Sequence[memoryview]) -> None:
        """A copy, for those who need one."""
        (data,) = self.views(spots, [at])
        if isinstance(data, IntegrityError):
            raise data
        for buffer in buffers:
            buffer[:], data = data[: len(buffer)], data[len(buffer) :]
