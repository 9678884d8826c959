"""The bytes of samples: where they lie, and how they are read from local files.

What is read goes into the caller's buffers, verified, and is copied nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError, PipelineError, SourceMissing, UsageError
from pipeline.index import Dataset
from pipeline.layout import key_text
from pipeline.records import Encoding
from pipeline.store.files import Files, OpenFile, crc32, preadv, read_on

Source: TypeAlias = "OpenFile | tuple[OpenFile, memoryview]"
"""Where samples' bytes are: in a file that is read, or that is mapped, which may be shorter by now."""

GAP: Final = 64 * 2**10  # bytes between two samples that are read rather than skipped
PROBES: Final = 2  # samples of a chunk that are looked at to know whether it is in memory
REGION: Final = 4 * 2**20  # bytes; a longer region is more than one request


@dataclass(frozen=True, eq=False)
class Spots:
    """Where the pictures of some rows of one dataset lie at one size; made by `spots_of`."""

    dataset: Dataset
    size: int
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    """One line for each: the number of its shard, the offset in it, length, crc32."""
    folder: str
    """Where the shards of this size lie; with a shard's number, the name of a file."""

    def __len__(self) -> int:
        return len(self.rows)

    # The same as plain numbers, for loops in Python; most spots never see one.

    @cached_property
    def shards(self) -> list[int]:
        return self._column(0)

    @cached_property
    def offsets(self) -> list[int]:
        return self._column(1)

    @cached_property
    def lengths(self) -> list[int]:
        return self._column(2)

    @cached_property
    def crcs(self) -> list[int]:
        return self._column(3)

    def _column(self, number: int) -> list[int]:
        numbers: list[int] = self.places[:, number].tolist()
        return numbers

    @property
    def encoding(self) -> Encoding:
        """How the pictures are stored."""
        recipe = self.dataset.manifest.recipe
        return recipe.encodings[recipe.sizes.index(self.size)]

    def part(self, begin: int, end: int) -> Spots:
        """Those from `begin` up to `end`."""
        return self._some(slice(begin, end))

    def pick(self, positions: list[int]) -> Spots:
        """Those at these positions."""
        return self._some(positions)

    def _some(self, which: slice | list[int]) -> Spots:
        return Spots(self.dataset, self.size, self.rows[which], self.places[which], self.folder)

    def file(self, at: int) -> Path:
        """The tar that holds a sample."""
        return self.dataset.tar(self.size, self.shards[at])

    def name(self, at: int) -> str:
        """A sample, for people."""
        key = key_text(int(self.dataset.index["key"][self.rows[at]]))
        return (
            f"sample {key} ({self.lengths[at]:,} bytes at {self.offsets[at]:,} of {self.file(at)})"
        )


def spots_of(dataset: Dataset, size: int, rows: NDArray[np.int64]) -> Spots:
    """Look up rows of the index. A size that the dataset lacks is a UsageError naming those it has."""
    sizes = dataset.manifest.recipe.sizes
    if size not in sizes:
        raise UsageError(
            f"dataset {dataset.manifest.name} has pictures of {', '.join(map(str, sizes))} pixels "
            f"and {size} are asked for; take one of these, or build that size too"
        )
    columns = ("shard", f"offset_{size}", f"length_{size}", f"crc32_{size}")
    places = np.empty((len(rows), len(columns)), np.int64)
    for place, name in zip(places.T, columns, strict=True):
        place[:] = dataset.index[name][rows]
    return Spots(dataset, size, rows, places, str(dataset.root / str(size)))


class Region(NamedTuple):
    """Bytes of one shard that are worth one request."""

    shard: int
    begin: int
    end: int
    members: list[int]
    """Positions in the spots, by offset."""


def regions(spots: Spots, gap: int = GAP, most: int = REGION) -> Iterator[Region]:
    """The spots as few regions, sorted: neighbours closer than `gap` together, up to `most` bytes."""
    if not len(spots):
        return
    shards, begins, lengths, _ = spots.places.T
    order = np.lexsort((begins, shards))
    shards, begins = shards[order], begins[order]
    ends = begins + lengths[order]
    far = (np.diff(shards) != 0) | (begins[1:] - ends[:-1] > gap)
    cuts = [0, *(np.flatnonzero(far) + 1).tolist(), len(order)]
    for first, last in pairwise(cuts):
        while first < last:
            stop = first + int(np.searchsorted(ends[first:last], begins[first] + most, "right"))
            stop = max(stop, first + 1)  # a sample longer than `most` is a region too
            members = order[first:stop].tolist()
            yield Region(
                int(shards[first]), int(begins[first]), int(ends[first:stop].max()), members
            )
            first = stop  # noqa: PLW2901 - the rest of a long run


class Store(Protocol):
    """Where samples' bytes come from. Threads may share one."""

    def prefetch(self, spots: Spots) -> None:
        """These will be read soon. Returns at once, and never fails."""
        ...

    def read(self, spots: Spots, at: int, buffers: Sequence[memoryview]) -> None:
        """Fill the buffers, as long together as the sample, with its bytes, crc32 verified.

        Raises IntegrityError (this sample is damaged) or SourceMissing (its shard is gone).
        """
        ...

    def sources(self, spots: Spots, begin: int, end: int) -> dict[int, Source]:
        """Of the samples `begin` up to `end`, by shard; {} where one cannot be had, and `read` says why.

        What is found there may be anything: whoever looks checks it, and says which were sound (`done`).
        """
        ...

    def done(self, spots: Spots, begin: int, end: int, left: Sequence[int]) -> None:
        """All of these were taken from their sources but those `left`, which `read` is asked for."""
        ...

    def close(self) -> None:
        """Let go of files and threads."""
        ...


class LocalStore:
    """Reads tars on a local disk, or on one that looks local."""

    def __init__(self, files: Files | None = None) -> None:
        self.files = files or Files()

    def prefetch(self, spots: Spots) -> None:
        """Tell the system what to read; costs next to nothing where it is in memory already."""
        if not hasattr(os, "posix_fadvise") or self._in_memory(spots):
            return
        for region in regions(spots):
            with suppress(OSError):  # a hint: whoever reads it reports what is wrong
                file = self._file(spots, region.shard)
                length = region.end - region.begin
                os.posix_fadvise(file.fd, region.begin, length, os.POSIX_FADV_WILLNEED)

    def _in_memory(self, spots: Spots) -> bool:
        """Whether a few of the samples, evenly taken, can be read without waiting for the disk."""
        probe = (bytearray(1),)
        try:
            for shard, offset, *_ in spots.places[:: max(1, len(spots) // PROBES)].tolist():
                os.preadv(self._file(spots, shard).fd, probe, offset, os.RWF_NOWAIT)
        except (OSError, AttributeError):  # not there yet; or the system cannot say
            return False
        return True

    def _file(self, spots: Spots, shard: int) -> OpenFile:
        key = (spots.folder, shard)
        file = self.files.open.get(key)
        if file is None:
            return self.files.get(key, spots.dataset.tar(spots.size, shard))
        file.recent = True
        return file

    def read(self, spots: Spots, at: int, buffers: Sequence[memoryview]) -> None:
        shard, offset = spots.shards[at], spots.offsets[at]
        try:
            file = self._file(spots, shard)
            found = preadv(file.fd, buffers, offset)
            if found != spots.lengths[at]:
                found = read_on(file.fd, buffers, offset, found)
        except OSError as error:
            self.files.drop((spots.folder, shard))  # it may be repaired before the next read
            raise unreadable(error, spots, at) from error
        crc = 0
        for buffer in buffers:
            crc = crc32(buffer, crc)
        # What a short read leaves of an earlier one in the buffers may have the right crc32.
        if crc != spots.crcs[at] or found != spots.lengths[at]:
            self.files.drop((spots.folder, shard))
            raise damaged(spots, at, found)

    def sources(self, spots: Spots, begin: int, end: int) -> dict[int, Source]:
        shards = dict.fromkeys(spots.places[begin:end, 0].tolist())
        try:
            return {shard: self._source(spots, shard) for shard in shards}
        except OSError:
            return {}

    def _source(self, spots: Spots, shard: int) -> Source:
        return self._file(spots, shard)

    def done(self, spots: Spots, begin: int, end: int, left: Sequence[int]) -> None:
        pass

    def close(self) -> None:
        self.files.close()


def unreadable(error: OSError, spots: Spots, at: int) -> PipelineError:
    if isinstance(error, FileNotFoundError):
        return SourceMissing(
            f"{spots.name(at)} is needed and the file is gone; pipeline.verify --repair builds it again"
        )
    return IntegrityError(f"{spots.name(at)} cannot be read: {error}")


def damaged(spots: Spots, at: int, found: int) -> IntegrityError:
    needed = spots.lengths[at]
    what = (
        f"the file ends after {found:,} of {needed:,} bytes" if found < needed else "crc32 differs"
    )
    return IntegrityError(f"{spots.name(at)} is damaged: {what}; pipeline.verify --repair mends it")
