"""Reads a numeric matrix from a MATLAB 5 file: enough for a list of labels, without SciPy."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError

HEADER_BYTES: Final = 128
ALIGNMENT: Final = 8
MATRIX_ELEMENT, COMPRESSED_ELEMENT = 14, 15
NUMBERS: Final = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
"""The number types of the format, by their names in NumPy."""


def read_numbers(data: bytes, name: str) -> NDArray[np.int64]:
    """The integers of the matrix called `name`, in the file's (column) order."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER_BYTES])
    if order is None:
        raise IntegrityError("not a MATLAB 5 file; download it again")
    try:
        for kind, body in _data_elements(data[HEADER_BYTES:], order):
            if kind == COMPRESSED_ELEMENT:
                kind, body = next(_data_elements(zlib.decompress(body), order))  # noqa: PLW2901
            if kind == MATRIX_ELEMENT:
                _, _, label, numbers = list(_data_elements(body, order))[:4]
                if label[1] == name.encode():
                    values = np.frombuffer(numbers[1], order + NUMBERS[numbers[0]])
                    return values.astype(np.int64)
    except (struct.error, zlib.error, KeyError, ValueError, StopIteration) as error:
        raise IntegrityError(f"the MATLAB file is damaged ({error}); download it again") from error
    raise IntegrityError(f"the MATLAB file has no matrix {name!r}")


def _data_elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and contents of each data element; up to four bytes lie in the tag itself."""
    position = 0
    while position < len(data):
        kind, size = struct.unpack_from(order + "II", data, position)
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
            position += ALIGNMENT
        else:
            start = position + ALIGNMENT
            position = start + size + (-size % ALIGNMENT if kind != COMPRESSED_ELEMENT else 0)
        if start + size > len(data):
            raise ValueError(f"an element of {size:,} bytes is cut off")
        yield kind, data[start : start + size]
