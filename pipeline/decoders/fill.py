"""Stored bytes become pixels in their final place, with the fewest copies.

What is sound is done by native.c, a piece at a time and without the GIL, where that was compiled; the
rest, or all, sample by sample below. Both give the same pixels, and only this file finds faults.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Final, TypeAlias

import numpy as np
import simplejpeg
from PIL import Image

from pipeline.decoders.base import Fault, Job
from pipeline.errors import IntegrityError
from pipeline.store.local import Spots, Store
from pipeline.store.mapped import MappedStore

try:
    from pipeline.decoders import native
except ImportError:  # not compiled: it needs libjpeg-turbo's and ISA-L's headers
    native = None  # type: ignore[assignment]

FIRST_SCRATCH: Final = 64 * 2**10  # bytes; more than most 224 px JPEGs take
BRIEF: Final = 64 * 2**10  # bytes; copying less takes no longer than handing over the GIL
NATIVE: Final = ("jpeg", "raw")
NPY_LONGEST: Final = 2**12  # bytes; numpy writes 128 before the pixels of a picture

Put: TypeAlias = Callable[[memoryview, Spots, int, memoryview], str]
"""Turns a sample's bytes into pixels, in place. Returns what is wrong; "" if nothing."""
Samples: TypeAlias = "Iterator[memoryview | IntegrityError]"
"""Verified bytes, or why there are none; each is looked at before the next one is asked for."""


class Filler:
    """Reads and decodes; keeps scratch memory, so every thread has its own."""

    def __init__(self, store: Store, *, fast: bool = False) -> None:
        self._store = store
        self._fast = fast
        self._puts: dict[str, Put] = {"jpeg": partial(jpeg, fast=fast), "raw": raw, "png": png}
        self._scratch = memoryview(bytearray(FIRST_SCRATCH))

    def fill(self, job: Job, begin: int, end: int) -> list[Fault]:
        """The rows `begin` up to `end` of `job.out`, which is host memory.

        A sample that is not what it should be becomes a fault and zeros; what is not about one
        sample (a shard is gone) is raised.
        """
        left = self._filled(job, begin, end)
        return self._one_by_one(job, left) if left else []

    def _filled(self, job: Job, begin: int, end: int) -> Sequence[int]:
        """Fill what is sound without Python; the positions that are left."""
        spots = job.spots
        form, size = spots.encoding.format, spots.size
        if native is None or form not in NATIVE:
            return range(begin, end)
        sources = self._store.sources(spots, begin, end)
        if not sources:
            return range(begin, end)
        header = npy_header(size) if form == "raw" else b""
        where = (spots.places, begin, end, job.pixels)
        left = native.fill(sources, *where, size, header, self._fast)
        self._store.done(spots, begin, end, left)
        return left

    def _one_by_one(self, job: Job, positions: Sequence[int]) -> list[Fault]:
        spots, pixels, stride = job.spots, job.pixels, job.spots.size**2 * 3
        rows = [pixels[at * stride : (at + 1) * stride] for at in positions]
        put, samples = self._way(spots, positions, rows)
        faults = []
        for at, row, data in zip(positions, rows, samples, strict=True):
            reason = str(data) if isinstance(data, IntegrityError) else put(data, spots, at, row)
            if reason:
                row[:] = bytes(stride)
                faults.append(Fault(at, reason))
        return faults

    def _way(
        self, spots: Spots, positions: Sequence[int], rows: list[memoryview]
    ) -> tuple[Put, Samples]:
        """How this store's bytes become pixels with the fewest copies."""
        form = spots.encoding.format
        if isinstance(self._store, MappedStore):
            return self._puts[form], self._store.views(spots, positions)
        if form == "raw":
            return header, self._headers(spots, positions, rows)
        return self._puts[form], self._copies(spots, positions)

    def _copies(self, spots: Spots, positions: Sequence[int]) -> Samples:
        """Samples read into scratch memory, one after the other into the same."""
        for at in positions:
            length = spots.lengths[at]
            if length > len(self._scratch):
                self._scratch = memoryview(bytearray(2 * length))
            data = self._scratch[:length]
            try:
                self._store.read(spots, at, (data,))
            except IntegrityError as error:
                yield error
            else:
                yield data

    def _headers(self, spots: Spots, positions: Sequence[int], rows: list[memoryview]) -> Samples:
        """Raw samples: pixels are read straight into their rows; what stands before them comes out."""
        for at, row in zip(positions, rows, strict=True):
            before = spots.lengths[at] - len(row)
            if not 0 < before <= NPY_LONGEST:
                yield IntegrityError(wrong_length(spots, at))
                continue
            data = self._scratch[:before]
            try:
                self._store.read(spots, at, (data, row))
            except IntegrityError as error:
                yield error
            else:
                yield data


def jpeg(data: memoryview, spots: Spots, at: int, row: memoryview, *, fast: bool = False) -> str:
    """Decode into `row`, strictly: a file that ends early is an error. Returns what is wrong."""
    try:
        shape = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=fast, fastupsample=fast, buffer=row
        ).shape
    except Exception as error:  # noqa: BLE001 - whatever simplejpeg makes of bad bytes
        return f"{spots.name(at)} cannot be decoded: {error}"
    if shape[0] == shape[1] == spots.size:
        return ""
    return f"{spots.name(at)} is {shape[1]} x {shape[0]} pixels and not {spots.size} x {spots.size}"


def png(data: memoryview, spots: Spots, at: int, row: memoryview) -> str:
    """Decode into `row`. Returns what is wrong."""
    size = spots.size
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        if (image.mode, *image.size) == ("RGB", size, size):
            row[:] = np.asarray(image).reshape(-1).data
            return ""
    except Exception as error:  # noqa: BLE001 - whatever Pillow makes of bad bytes
        return f"{spots.name(at)} cannot be decoded: {error}"
    found = f"{image.width} x {image.height} pixels of {image.mode}"
    return f"{spots.name(at)} is {found} and not {size} x {size} of RGB"


def raw(data: memoryview, spots: Spots, at: int, row: memoryview) -> str:
    """Copy the pixels of a .npy file into `row`. Returns what is wrong."""
    before = len(data) - len(row)
    if not 0 < before <= NPY_LONGEST:
        return wrong_length(spots, at)
    if len(row) < BRIEF:
        row[:] = data[before:]
    else:  # numpy copies without the GIL
        np.copyto(np.frombuffer(row, np.uint8), np.frombuffer(data[before:], np.uint8))
    return header(data[:before], spots, at, row)


def header(data: memoryview, spots: Spots, at: int, row: memoryview) -> str:  # noqa: ARG001 - a Put
    """What is wrong with the bytes before the pixels of a .npy file."""
    reason = npy_reason(data.tobytes(), spots.size)
    return f"{spots.name(at)} is no .npy picture: {reason}" if reason else ""


def wrong_length(spots: Spots, at: int) -> str:
    """Of a .npy file that cannot hold a header and the pixels."""
    needed = f"a header and {spots.size**2 * 3:,} bytes of pixels"
    return f"{spots.name(at)} is no .npy picture of {spots.size} pixels: it needs {needed}"


@lru_cache
def npy_header(size: int) -> bytes:
    """What stands before the pixels of our own raw pictures; other headers may be as good."""
    stream = io.BytesIO()
    np.save(stream, np.empty((size, size, 3), np.uint8))
    return stream.getvalue()[: -(size**2) * 3]


@lru_cache
def npy_reason(header: bytes, size: int) -> str:
    """What keeps these bytes from standing before the pixels of an RGB picture; "" if nothing."""
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            return f"its version is {version} and not (1, 0)"
        found = np.lib.format.read_array_header_1_0(stream)
    except ValueError as error:
        return str(error)
    needed = ((size, size, 3), False, np.dtype(np.uint8))
    if found != needed:
        return f"its header says {found} and not {needed}"
    return "" if not stream.read(1) else "bytes are left over between header and pixels"
