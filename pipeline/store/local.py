"""Where the bytes of samples lie, and how they are read from local files.

A sample is read straight into the caller's buffers and verified there; it is copied nowhere else. The
open files themselves are kept by `pipeline/store/files.py`.
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
from pipeline.store.files import FilePool, OpenFile, continue_read, crc32, preadv

OpenShard: TypeAlias = "OpenFile | tuple[OpenFile, memoryview]"
"""A shard to read, or one that is mapped, with all its bytes; the file may be shorter by now."""

READ_GAP_BYTES: Final = 64 * 2**10  # between two samples; a longer gap is skipped and not read
PROBED_SAMPLES: Final = 2  # of a chunk, to know whether it is in memory
MAX_RANGE_BYTES: Final = 4 * 2**20  # a longer range becomes more than one request


@dataclass(frozen=True, eq=False)
class SampleLocations:
    """Where the images of some rows of one dataset lie at one size; made by `locate_samples`."""

    dataset: Dataset
    size: int
    rows: NDArray[np.int64]
    table: NDArray[np.int64]
    """One line for each sample: its shard's number, its offset there, its length, its crc32."""
    folder: str
    """The folder of this size's shards; with a shard's number, the key of a file."""

    def __len__(self) -> int:
        return len(self.rows)

    # The columns as plain numbers, for loops in Python; most locations never need them.

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
        numbers: list[int] = self.table[:, number].tolist()
        return numbers

    @property
    def encoding(self) -> Encoding:
        """How the images are stored."""
        recipe = self.dataset.manifest.recipe
        return recipe.encodings[recipe.sizes.index(self.size)]

    def part(self, begin: int, end: int) -> SampleLocations:
        """The samples `begin` up to `end`."""
        return self._select(slice(begin, end))

    def pick(self, positions: list[int]) -> SampleLocations:
        """The samples at these positions."""
        return self._select(positions)

    def _select(self, which: slice | list[int]) -> SampleLocations:
        rows, table = self.rows[which], self.table[which]
        return SampleLocations(self.dataset, self.size, rows, table, self.folder)

    def file(self, at: int) -> Path:
        """The tar that holds a sample."""
        return self.dataset.tar(self.size, self.shards[at])

    def describe(self, at: int) -> str:
        """A sample's key, length, offset and file, for messages."""
        key = key_text(int(self.dataset.index["key"][self.rows[at]]))
        return f"sample {key} ({self.lengths[at]:,} bytes at {self.offsets[at]:,} of {self.file(at)})"


def locate_samples(dataset: Dataset, size: int, rows: NDArray[np.int64]) -> SampleLocations:
    """Look up rows of the index. Raises UsageError, with the sizes there are, for any other size."""
    sizes = dataset.manifest.recipe.sizes
    if size not in sizes:
        raise UsageError(
            f"dataset {dataset.manifest.name} has pictures of {', '.join(map(str, sizes))} pixels "
            f"and {size} are asked for; take one of these, or build that size too"
        )
    names = ("shard", f"offset_{size}", f"length_{size}", f"crc32_{size}")
    table = np.empty((len(rows), len(names)), np.int64)
    for column, name in zip(table.T, names, strict=True):
        column[:] = dataset.index[name][rows]
    return SampleLocations(dataset, size, rows, table, str(dataset.root / str(size)))


def check_tars(dataset: Dataset, size: int) -> None:
    """Raise SourceMissing or IntegrityError if a local tar of this size is gone, or is not as long as it was.

    One `stat` for each tar: a copy that ended early is found before a run begins, and not hours later.
    """
    for shard, needed in dataset.manifest.tar_bytes(size).items():
        tar = dataset.tar(size, shard)
        try:
            found = tar.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            raise SourceMissing(
                f"{tar} is needed and not there; copy it again, or pipeline.verify --repair builds it"
            ) from None
        if found != needed:
            raise IntegrityError(
                f"{tar} has {found:,} bytes and dataset.json says {needed:,}; copy it again, or "
                "pipeline.verify --repair mends it"
            )


class ByteRange(NamedTuple):
    """Bytes of one shard that are worth one request."""

    shard: int
    begin: int
    end: int
    members: list[int]
    """Positions of the samples in it, by offset."""


def merge_ranges(
    locations: SampleLocations, gap: int = READ_GAP_BYTES, most: int = MAX_RANGE_BYTES
) -> Iterator[ByteRange]:
    """The samples as few ranges, sorted. Neighbours closer than `gap` share one of up to `most` bytes."""
    if not len(locations):
        return
    shards, begins, lengths, _ = locations.table.T
    order = np.lexsort((begins, shards))
    shards, begins = shards[order], begins[order]
    ends = begins + lengths[order]
    far = (np.diff(shards) != 0) | (begins[1:] - ends[:-1] > gap)
    cuts = [0, *(np.flatnonzero(far) + 1).tolist(), len(order)]
    for first, last in pairwise(cuts):
        while first < last:
            stop = first + int(np.searchsorted(ends[first:last], begins[first] + most, "right"))
            stop = max(stop, first + 1)  # a sample longer than `most` is a range too
            members = order[first:stop].tolist()
            yield ByteRange(int(shards[first]), int(begins[first]), int(ends[first:stop].max()), members)
            first = stop  # noqa: PLW2901 - the rest of a long run


class SampleStore(Protocol):
    """Where samples' bytes come from. Threads may share one."""

    def prefetch(self, locations: SampleLocations) -> None:
        """Announce samples that will be read soon. Returns at once, and never fails."""
        ...

    def read(self, locations: SampleLocations, at: int, buffers: Sequence[memoryview]) -> None:
        """Fill the buffers, as long together as the sample, with its bytes, crc32 verified.

        Raises IntegrityError (this sample is damaged) or SourceMissing (its shard is gone).
        """
        ...

    def open_shards(self, locations: SampleLocations, begin: int, end: int) -> dict[int, OpenShard]:
        """Open the shards of the samples `begin` up to `end`, by number; {} if one cannot be opened.

        Nothing is verified: whoever reads there checks each crc32 and calls `release`. For samples
        that are not sound, and after {}, `read` says why.
        """
        ...

    def release(self, locations: SampleLocations, begin: int, end: int, left: Sequence[int]) -> None:
        """Say that all of these were read from their open shards, but for those `left` to `read`."""
        ...

    def close(self) -> None:
        """Let go of files and threads."""
        ...


class LocalStore:
    """Reads tars on a local disk, or on one that looks local."""

    def __init__(self, files: FilePool | None = None) -> None:
        self.files = files or FilePool()

    def prefetch(self, locations: SampleLocations) -> None:
        """Ask the system to read ahead; costs next to nothing where it is in memory already."""
        if not hasattr(os, "posix_fadvise") or self._in_memory(locations):
            return
        for span in merge_ranges(locations):
            with suppress(OSError):  # a hint: whoever reads it reports what is wrong
                file = self._file(locations, span.shard)
                length = span.end - span.begin
                os.posix_fadvise(file.fd, span.begin, length, os.POSIX_FADV_WILLNEED)

    def _in_memory(self, locations: SampleLocations) -> bool:
        """Whether a few of the samples, evenly taken, can be read without waiting for the disk."""
        probe = (bytearray(1),)
        step = max(1, len(locations) // PROBED_SAMPLES)
        try:
            for shard, offset, *_ in locations.table[::step].tolist():
                os.preadv(self._file(locations, shard).fd, probe, offset, os.RWF_NOWAIT)
        except (OSError, AttributeError):  # not there yet; or the system cannot say
            return False
        return True

    def _file(self, locations: SampleLocations, shard: int) -> OpenFile:
        key = (locations.folder, shard)
        file = self.files.open.get(key)
        if file is None:
            return self.files.get(key, locations.dataset.tar(locations.size, shard))
        file.recent = True
        return file

    def read(self, locations: SampleLocations, at: int, buffers: Sequence[memoryview]) -> None:
        shard, offset = locations.shards[at], locations.offsets[at]
        try:
            file = self._file(locations, shard)
            received = preadv(file.fd, buffers, offset)
            if received != locations.lengths[at]:
                received = continue_read(file.fd, buffers, offset, received)
        except OSError as error:
            self.files.drop((locations.folder, shard))  # it may be repaired before the next read
            raise unreadable_error(error, locations, at) from error
        crc = 0
        for buffer in buffers:
            crc = crc32(buffer, crc)
        # What a short read leaves of an earlier one in the buffers may have the right crc32.
        if crc != locations.crcs[at] or received != locations.lengths[at]:
            self.files.drop((locations.folder, shard))
            raise damaged_error(locations, at, received)

    def open_shards(self, locations: SampleLocations, begin: int, end: int) -> dict[int, OpenShard]:
        shards = dict.fromkeys(locations.table[begin:end, 0].tolist())
        try:
            return {shard: self._open_shard(locations, shard) for shard in shards}
        except OSError:
            return {}

    def _open_shard(self, locations: SampleLocations, shard: int) -> OpenShard:
        return self._file(locations, shard)

    def release(self, locations: SampleLocations, begin: int, end: int, left: Sequence[int]) -> None:
        pass

    def close(self) -> None:
        self.files.close()


def unreadable_error(error: OSError, locations: SampleLocations, at: int) -> PipelineError:
    """What to raise for a sample whose file cannot be opened or read."""
    sample = locations.describe(at)
    if isinstance(error, FileNotFoundError):
        return SourceMissing(
            f"{sample} is needed and the file is gone; pipeline.verify --repair builds it again"
        )
    return IntegrityError(f"{sample} cannot be read: {error}")


def damaged_error(locations: SampleLocations, at: int, received: int) -> IntegrityError:
    """What to raise for a sample of which so many bytes came, short or with another crc32."""
    needed = locations.lengths[at]
    what = "crc32 differs"
    if received < needed:
        what = f"the file ends after {received:,} of {needed:,} bytes"
    sample = locations.describe(at)
    return IntegrityError(f"{sample} is damaged: {what}; pipeline.verify --repair mends it")
