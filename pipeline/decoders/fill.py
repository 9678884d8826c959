"""Decoding of stored bytes into their rows of a job, with the fewest copies.

Where native.c was compiled it decodes the sound samples of a piece in one call, without the GIL. What it
leaves, or everything, is decoded below, sample by sample. Pixels are the same; only this file finds faults.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Final, TypeAlias

import numpy as np
import simplejpeg
from PIL import Image

from pipeline.decoders.base import DecodeJob, SampleFault
from pipeline.errors import IntegrityError, first_line
from pipeline.layout import npy_header
from pipeline.store.local import SampleLocations, SampleStore
from pipeline.store.mapped import MappedStore

try:
    from pipeline.decoders import native
except ImportError:  # not compiled: it needs libjpeg-turbo's and ISA-L's headers
    native = None  # type: ignore[assignment]

SCRATCH_BYTES: Final = 64 * 2**10  # more than most 224 px JPEGs take
SMALL_COPY_BYTES: Final = 64 * 2**10  # copying less is as quick as handing over the GIL
NATIVE_FORMATS: Final = ("jpeg", "raw")
MAX_NPY_HEADER_BYTES: Final = 2**12  # numpy writes 128 before the pixels of an image

SampleDecoder: TypeAlias = Callable[[memoryview, SampleLocations, int, memoryview], str]
"""Decodes a sample's bytes into its row. Returns what is wrong; "" if nothing."""
SampleBytes: TypeAlias = "Iterator[memoryview | IntegrityError]"
"""The verified bytes of samples, or an error; each is used before the next one is asked for."""


class PixelFiller:
    """Reads and decodes the samples of pieces. It has scratch memory, so every thread needs its own."""

    def __init__(self, store: SampleStore, *, fast: bool = False) -> None:
        self._store = store
        self._fast = fast
        self._decoders: dict[str, SampleDecoder] = {"raw": decode_raw, "png": decode_png}
        self._decoders["jpeg"] = partial(decode_jpeg, fast=fast)
        self._scratch = memoryview(bytearray(SCRATCH_BYTES))

    def fill(self, job: DecodeJob, begin: int, end: int) -> list[SampleFault]:
        """Fill the rows `begin` up to `end` of `job.out`, which is host memory. Returns their faults.

        A sample that is damaged becomes a fault and zeros; an error of a whole shard is raised.
        """
        left = self._fill_native(job, begin, end)
        return self._fill_one_by_one(job, left) if left else []

    def _fill_native(self, job: DecodeJob, begin: int, end: int) -> Sequence[int]:
        """Fill the rows of sound samples in native.c. Returns the positions that are left."""
        locations = job.locations
        stored_as, size = locations.encoding.format, locations.size
        if native is None or stored_as not in NATIVE_FORMATS:
            return range(begin, end)
        shards = self._store.open_shards(locations, begin, end)
        if not shards:
            return range(begin, end)
        header = npy_header(size, size) if stored_as == "raw" else b""
        piece = (locations.table, begin, end, job.pixels)
        left = native.fill(shards, *piece, size, header, self._fast)
        self._store.release(locations, begin, end, left)
        return left

    def _fill_one_by_one(self, job: DecodeJob, positions: Sequence[int]) -> list[SampleFault]:
        locations, pixels, stride = job.locations, job.pixels, job.locations.size**2 * 3
        rows = [pixels[at * stride : (at + 1) * stride] for at in positions]
        decode, samples = self._choose_decoder(locations, positions, rows)
        faults = []
        for at, row, data in zip(positions, rows, samples, strict=True):
            reason = str(data) if isinstance(data, IntegrityError) else decode(data, locations, at, row)
            if reason:
                row[:] = bytes(stride)
                faults.append(SampleFault(at, reason))
        return faults

    def _choose_decoder(
        self, locations: SampleLocations, positions: Sequence[int], rows: list[memoryview]
    ) -> tuple[SampleDecoder, SampleBytes]:
        """The decoder, and the samples to give it, that need the fewest copies with this store."""
        stored_as = locations.encoding.format
        if isinstance(self._store, MappedStore):
            return self._decoders[stored_as], self._store.views(locations, positions)
        if stored_as == "raw":
            return check_npy_header, self._npy_headers(locations, positions, rows)
        return self._decoders[stored_as], self._read_samples(locations, positions)

    def _read_samples(self, locations: SampleLocations, positions: Sequence[int]) -> SampleBytes:
        """Read each sample into the same scratch memory."""
        for at in positions:
            length = locations.lengths[at]
            if length > len(self._scratch):
                self._scratch = memoryview(bytearray(2 * length))
            data = self._scratch[:length]
            try:
                self._store.read(locations, at, (data,))
            except IntegrityError as error:
                yield error
            else:
                yield data

    def _npy_headers(
        self, locations: SampleLocations, positions: Sequence[int], rows: list[memoryview]
    ) -> SampleBytes:
        """Read the pixels of raw samples straight into their rows, and yield the headers before them."""
        for at, row in zip(positions, rows, strict=True):
            before = locations.lengths[at] - len(row)
            if not 0 < before <= MAX_NPY_HEADER_BYTES:
                yield IntegrityError(describe_wrong_length(locations, at))
                continue
            data = self._scratch[:before]
            try:
                self._store.read(locations, at, (data, row))
            except IntegrityError as error:
                yield error
            else:
                yield data


def decode_jpeg(
    data: memoryview, locations: SampleLocations, at: int, row: memoryview, *, fast: bool = False
) -> str:
    """Decode a JPEG into `row`, strictly: a file that ends early is an error. Returns what is wrong."""
    try:
        shape = simplejpeg.decode_jpeg(data, "RGB", fastdct=fast, fastupsample=fast, buffer=row).shape
    except Exception as error:  # noqa: BLE001 - simplejpeg raises many kinds for bad bytes
        return f"{locations.describe(at)} cannot be decoded: {error}"
    size = locations.size
    if shape[0] == shape[1] == size:
        return ""
    return f"{locations.describe(at)} is {shape[1]} x {shape[0]} pixels and not {size} x {size}"


def decode_png(data: memoryview, locations: SampleLocations, at: int, row: memoryview) -> str:
    """Decode a PNG into `row`. Returns what is wrong."""
    size = locations.size
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        if (image.mode, *image.size) == ("RGB", size, size):
            row[:] = np.asarray(image).reshape(-1).data
            return ""
    except Exception as error:  # noqa: BLE001 - Pillow raises many kinds for bad bytes
        return f"{locations.describe(at)} cannot be decoded: {error}"
    actual = f"{image.width} x {image.height} pixels of {image.mode}"
    return f"{locations.describe(at)} is {actual} and not {size} x {size} of RGB"


def decode_raw(data: memoryview, locations: SampleLocations, at: int, row: memoryview) -> str:
    """Copy the pixels of a .npy file into `row`. Returns what is wrong."""
    before = len(data) - len(row)
    if not 0 < before <= MAX_NPY_HEADER_BYTES:
        return describe_wrong_length(locations, at)
    if len(row) < SMALL_COPY_BYTES:
        row[:] = data[before:]
    else:  # numpy copies without the GIL
        np.copyto(np.frombuffer(row, np.uint8), np.frombuffer(data[before:], np.uint8))
    return check_npy_header(data[:before], locations, at, row)


def check_npy_header(data: memoryview, locations: SampleLocations, at: int, row: memoryview) -> str:  # noqa: ARG001
    """Check the bytes before the pixels of a .npy file. Returns what is wrong."""
    reason = npy_header_fault(data.tobytes(), locations.size)
    return f"{locations.describe(at)} is no .npy picture: {reason}" if reason else ""


def describe_wrong_length(locations: SampleLocations, at: int) -> str:
    """The fault of a .npy file that cannot hold a header and the pixels."""
    size, sample = locations.size, locations.describe(at)
    needed = f"a header and {size**2 * 3:,} bytes of pixels"
    return f"{sample} is no .npy picture of {size} pixels: it needs {needed}"


@lru_cache
def npy_header_fault(header: bytes, size: int) -> str:
    """Why these bytes are no .npy header of an RGB image of this size; "" if they are."""
    stream = io.BytesIO(header)
    try:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            return f"its version is {version} and not (1, 0)"
        described = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # noqa: BLE001 - numpy parses Python, which fails in many kinds
        return first_line(error)
    needed = ((size, size, 3), False, np.dtype(np.uint8))
    if described != needed:
        return f"its header says {described} and not {needed}"
    return "" if not stream.read(1) else "bytes are left over between header and pixels"
