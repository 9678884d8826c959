"""What DALI gets to see: pictures whose bytes are as they were built and whose header parses."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.decoders.base import Fault
from pipeline.decoders.threads import Piece
from pipeline.errors import IntegrityError
from pipeline.store.local import Spots, Store

COLOURS: Final = ("YCbCr", "Gray", "RGB")  # of others (CMYK) each decoder makes a different RGB


@dataclass(slots=True, eq=False)
class Batch:
    """Pictures on their way through DALI."""

    piece: Piece | None
    """What they are; None for a filler."""
    pictures: list[NDArray[np.uint8]]
    """Encoded; a faulty one is replaced by a black one."""
    arena: NDArray[np.uint8]
    """The memory that they lie in."""
    faults: list[Fault] = field(default_factory=list)
    seconds: float = 0.0

    def over(self, seconds: float = 0.0, error: BaseException | None = None) -> None:
        """It left DALI."""
        if self.piece is not None:
            self.piece.over(self.faults, self.seconds + seconds, error)


class Gate:
    """Reads pieces for one thread. An unparsable header can crash DALI; parsing it here costs 1.5 us."""

    def __init__(self, store: Store, size: int) -> None:
        self._store = store
        black = simplejpeg.encode_jpeg(np.zeros((size, size, 3), np.uint8))
        self._black = np.frombuffer(black, np.uint8)
        self._arenas: list[NDArray[np.uint8]] = []

    def filler(self) -> Batch:
        """One black picture, for nobody."""
        return Batch(None, [self._black], self._black)

    def read(self, piece: Piece) -> Batch | None:
        """None if it cannot be read: then the piece is over."""
        started = perf_counter()
        spots, begin, end = piece.job.spots, piece.begin, piece.end
        batch = Batch(piece, [], self._black)
        used = 0
        try:
            batch.arena = self._arena(sum(spots.lengths[begin:end]))
            for at in range(begin, end):
                data = batch.arena[used : used + spots.lengths[at]]
                used += len(data)
                reason = self._reason(spots, at, data)
                if reason:
                    batch.faults.append(Fault(at, reason))
                batch.pictures.append(self._black if reason else data)
        except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits
            batch.over(perf_counter() - started, error)
            return None
        batch.seconds = perf_counter() - started
        return batch

    def take_back(self, batch: Batch) -> None:
        """Nobody looks at this batch's memory any more."""
        self._arenas.append(batch.arena)

    def _arena(self, size: int) -> NDArray[np.uint8]:
        """Memory of an earlier batch if it is large enough: fresh pages cost more than reading."""
        if self._arenas and len(self._arenas[-1]) >= size:
            return self._arenas.pop()
        self._arenas.clear()
        return np.empty(size + size // 4, np.uint8)

    def _reason(self, spots: Spots, at: int, data: NDArray[np.uint8]) -> str:
        """What keeps these bytes from DALI; "" if nothing."""
        try:
            self._store.read(spots, at, (data.data,))
            height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        except IntegrityError as error:
            return str(error)
        except ValueError as error:
            return f"{spots.name(at)} cannot be decoded: {error}"
        if height == width == spots.size and colours in COLOURS:
            return ""
        needed = f"{spots.size} x {spots.size} of {' or '.join(COLOURS)}"
        return f"{spots.name(at)} is {width} x {height} pixels of {colours} and not {needed}"
