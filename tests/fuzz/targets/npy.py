"""Arrays in .npy: the drawings of `pipeline.sources.meta_dataset.arrays.QuickDrawSource`."""

from __future__ import annotations

import io
import random

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.sources.meta_dataset.arrays import GREY_PIXELS, _open_rows
from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.source_files import written

SHAPES = ("(-1, 784)", "(3, -784)", "(2**63, 784)", "(99999999999999999999, 784)", "()", "(0, 784)", "(3, 28, 28)",
          "((((3,),),),)", "(3L, 784)", "(True, 784)", "(1.5, 784)", "(3, 784" + "," * 50 + ")", "'x'")  # fmt: skip


def seeds() -> list[bytes]:
    rows = np.zeros((3, GREY_PIXELS), np.uint8)
    return [
        _stored(rows),
        _stored(rows.astype(bool)),
        _stored(rows.reshape(3, 28, 28)),
        _stored(rows.astype(float)),
    ]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Changed bytes, or another shape in the header."""
    if generator.random() < 0.5:
        return mutate_bytes(data, generator)
    shape = generator.choice(SHAPES).encode()
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': %s, }" % shape
    length = len(header).to_bytes(2, "little")
    return b"\x93NUMPY\x01\0" + length + mutate_bytes(header, generator) + bytes(3 * GREY_PIXELS)


def check(data: bytes) -> None:
    """Accepted rows lie within the file, and the last can be read."""
    try:
        rows = _open_rows(written("a.npy", data))
    except PipelineError:
        return
    assert rows.nbytes == len(rows) * GREY_PIXELS <= len(data)
    if len(rows):
        np.array(rows[-1])


def _stored(rows: NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return buffer.getvalue()
