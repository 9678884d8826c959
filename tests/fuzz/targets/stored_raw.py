"""Raw samples of a shard: `pipeline.decoders.fill.decode_raw`, and its header."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from pipeline.decoders.fill import MAX_NPY_HEADER_BYTES, decode_raw
from pipeline.layout import npy_header

SIZE = 4
PIXEL_BYTES = SIZE * SIZE * 3
ABOUT: Any = SimpleNamespace(size=SIZE, describe=lambda at: f"sample {at}")


def seeds() -> list[bytes]:
    sound = npy_header(SIZE, SIZE)
    fortran = sound.replace(b"'fortran_order': False", b"'fortran_order': True ")
    shapes = [sound.replace(b"(4, 4, 3)", shape) for shape in (b"(4, 4, 4)", b"[4, 4, 3]", b"(48,  )  ")]
    return [header + bytes(range(PIXEL_BYTES)) for header in (sound, fortran, *shapes)]


def check(data: bytes) -> None:
    row = memoryview(bytearray(PIXEL_BYTES))
    if decode_raw(memoryview(data), ABOUT, 0, row):
        return
    assert PIXEL_BYTES < len(data) <= PIXEL_BYTES + MAX_NPY_HEADER_BYTES
    assert row == data[-PIXEL_BYTES:]
