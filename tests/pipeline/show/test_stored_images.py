"""A stored image is decoded if it is one of its size, and nothing is allocated for anything else."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pipeline.build.images import DECODE_ERRORS
from pipeline.show.stored_images import _decode
from tests.images import make_image

SIZE = 24


def npy_bytes(pixels: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, pixels, version)
    return stream.getvalue()


def file_bytes(form: str, width: int, height: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, form)
    return stream.getvalue()


def test_an_image_of_each_encoding_is_decoded() -> None:
    image = make_image(3, SIZE, SIZE)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    for data in (npy_bytes(np.asarray(image)), stream.getvalue()):
        assert np.array_equal(np.asarray(_decode(data, SIZE)), np.asarray(image))
    assert _decode(file_bytes("JPEG", SIZE, SIZE), SIZE).size == (SIZE, SIZE)


def with_shape(shape: str) -> Callable[[], bytes]:
    def make() -> bytes:
        whole = npy_bytes(np.zeros((SIZE, SIZE, 3), np.uint8))
        head = whole[:128].replace(b"(24, 24, 3), }", f"{shape}, }}".encode())
        return head[:127].ljust(127).replace(b"\n", b" ") + b"\n" + whole[128:]

    return make


@pytest.mark.parametrize(
    "make",
    [
        with_shape("(100000, 100000, 3)"),
        with_shape("(-24, -24, 3)"),
        with_shape("(24, 24, 3" + "(" * 60),
        lambda: npy_bytes(np.zeros((SIZE, SIZE, 3), np.uint8), (2, 0)),
        lambda: npy_bytes(np.zeros((SIZE, SIZE, 3), np.float32)),
        lambda: npy_bytes(np.zeros((SIZE, SIZE, 3), np.uint8)) + b"x",
        lambda: npy_bytes(np.zeros((SIZE, SIZE, 3), np.uint8))[:-1],
        lambda: b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 9000,
        lambda: file_bytes("PNG", 6000, 6000),
        lambda: file_bytes("JPEG", SIZE, SIZE + 1),
        lambda: file_bytes("GIF", SIZE, SIZE),
        lambda: pickle.dumps([1]),
        lambda: b"",
    ],
)
def test_anything_else_is_an_error_that_callers_expect(make: Callable[[], bytes]) -> None:
    with pytest.raises(DECODE_ERRORS):
        _decode(make(), SIZE)
