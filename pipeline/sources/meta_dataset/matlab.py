"""Reads a numeric matrix from a MATLAB 5 file: enough for a list of labels, without SciPy."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError

HEADER_BYTES: Final = 128
ALIGNMENT: Final = 8
INFLATED_LIMIT: Final = 1 << 26  # bytes; the labels of 8 million images
MOST_EXACT: Final = 2.0**53  # above it a float leaves out whole numbers
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
                kind, body = next(_data_elements(_inflated(body), order))  # noqa: PLW2901
            if kind == MATRIX_ELEMENT:
                _, _, label, numbers = islice(_data_elements(body, order), 4)
                if label[1] == name.encode():
                    return _integers(np.frombuffer(numbers[1], order + NUMBERS[numbers[0]]))
    except (struct.error, zlib.error, KeyError, ValueError, StopIteration) as error:
        raise IntegrityError(f"the MATLAB file is damaged ({error}); download it again") from error
    raise IntegrityError(f"the MATLAB file has no matrix {name!r}")


def _inflated(body: bytes) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(body, INFLATED_LIMIT)
    if not stream.eof:
        raise ValueError(f"an element is cut off, or inflates to more than {INFLATED_LIMIT:,} bytes")
    return data


def _integers(values: NDArray[Any]) -> NDArray[np.int64]:
    if values.dtype.kind == "f" and not (np.abs(values) < MOST_EXACT).all():
        raise ValueError("its numbers are no labels")
    return values.astype(np.int64)


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
