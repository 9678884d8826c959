"""The input of DALI: images whose bytes are verified and whose headers parse."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.decoders.base import SampleFault
from pipeline.decoders.threads import ChunkPiece
from pipeline.errors import IntegrityError
from pipeline.store.local import SampleLocations, SampleStore

JPEG_COLOUR_SPACES: Final = ("YCbCr", "Gray", "RGB")
"""Decoders turn others (CMYK) into different RGB."""


@dataclass(slots=True, eq=False)
class DaliBatch:
    """Encoded images on their way through DALI."""

    piece: ChunkPiece | None
    """Their rows of a job; None for a blank batch."""
    images: list[NDArray[np.uint8]]
    """Encoded; a bad one is replaced by a black one."""
    arena: NDArray[np.uint8]
    """The memory that they lie in, used again after the batch."""
    faults: list[SampleFault] = field(default_factory=list)
    seconds: float = 0.0

    def over(self, seconds: float = 0.0, error: BaseException | None = None) -> None:
        """Report the batch's piece as decoded, or failed: it left DALI."""
        if self.piece is not None:
            self.piece.job.report(self.faults, self.seconds + seconds, error)


class DaliInput:
    """Reads pieces into batches, for one thread. Parsing a header costs 1.5 us; a bad one can crash DALI."""

    def __init__(self, store: SampleStore, size: int) -> None:
        self._store = store
        black = simplejpeg.encode_jpeg(np.zeros((size, size, 3), np.uint8))
        self._black = np.frombuffer(black, np.uint8)
        self._arenas: list[NDArray[np.uint8]] = []

    def blank_batch(self) -> DaliBatch:
        """A batch of one black image, which belongs to no job."""
        return DaliBatch(None, [self._black], self._black)

    def read(self, piece: ChunkPiece) -> DaliBatch | None:
        """Read a piece; None if it cannot be read, which has then been reported."""
        started = perf_counter()
        locations, begin, end = piece.job.locations, piece.begin, piece.end
        batch = DaliBatch(piece, [], self._black)
        used = 0
        try:
            batch.arena = self._arena(sum(locations.lengths[begin:end]))
            for at in range(begin, end):
                data = batch.arena[used : used + locations.lengths[at]]
                used += len(data)
                reason = self._read_sample(locations, at, data)
                if reason:
                    batch.faults.append(SampleFault(at, reason))
                batch.images.append(self._black if reason else data)
        except BaseException as error:  # noqa: BLE001 - reported by the job
            batch.over(perf_counter() - started, error)
            return None
        batch.seconds = perf_counter() - started
        return batch

    def recycle(self, batch: DaliBatch) -> None:
        """Use the memory of a batch again; nothing reads it any more."""
        self._arenas.append(batch.arena)

    def _arena(self, size: int) -> NDArray[np.uint8]:
        """Memory of an earlier batch, if that is large enough: fresh pages cost more than reading."""
        if self._arenas and len(self._arenas[-1]) >= size:
            return self._arenas.pop()
        self._arenas.clear()
        return np.empty(size + size // 4, np.uint8)

    def _read_sample(self, locations: SampleLocations, at: int, data: NDArray[np.uint8]) -> str:
        """Read a sample and parse its header. Returns why DALI must not see it; "" if it may."""
        try:
            self._store.read(locations, at, (data.data,))
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        except IntegrityError as error:
            return str(error)
        except ValueError as error:
            return f"{locations.describe(at)} cannot be decoded: {error}"
        if height == width == locations.size and colours in JPEG_COLOUR_SPACES:
            return ""
        needed = f"{locations.size} x {locations.size} of {' or '.join(JPEG_COLOUR_SPACES)}"
        return f"{locations.describe(at)} is {width} x {height} pixels of {colours} and not {needed}"
