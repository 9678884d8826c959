"""A rewritten TIFF can be read in one way only, and what cannot be rewritten is refused."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.build.tiff_files import rewrite_tiff
from pipeline.errors import IntegrityError
from tests.image_writers import PIXELS_AT, TiffTag, overread_tiff, rgb_tags, tiff_file
from tests.images import make_image

IMAGE = make_image(1)
PIXELS = IMAGE.tobytes()
STRIP: list[TiffTag] = [(273, 4, [PIXELS_AT]), (278, 4, [30]), (279, 4, [len(PIXELS)])]


def replaced(tags: list[TiffTag], tag: int, kind: int, values: Sequence[int]) -> list[TiffTag]:
    return [*(entry for entry in tags if entry[0] != tag), (tag, kind, values)]


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=("TIFF",))
    image.load()
    return image


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_new_directory_has_the_pixels_tags_in_order_and_no_others(order: str) -> None:
    extra: list[TiffTag] = [(700, 1, list(b"<xmp/>")), (305, 1, list(b"a program")), (274, 3, [6])]
    tiff = rewrite_tiff(tiff_file([*extra, *STRIP, *rgb_tags(40, 30)], PIXELS, order))
    image = opened(tiff.data)
    assert np.array_equal(np.asarray(image), np.asarray(IMAGE))
    assert list(image.tag_v2) == [256, 257, 258, 259, 262, 273, 277, 278, 279, 284]  # type: ignore[attr-defined]
    assert (tiff.orientation, tiff.xmp) == (6, b"<xmp/>")


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
@pytest.mark.parametrize("big", [False, True])
def test_pixels_are_the_same_as_before(compression: str, *, big: bool, tmp_path: Path) -> None:
    for mode in ("1", "L", "P", "LA", "RGB", "RGBA", "CMYK", "I;16", "F"):
        image = make_image(2, 33, 21).convert(mode.partition(";")[0])
        if mode == "I;16":
            image = Image.fromarray(np.asarray(image.convert("L")) * np.uint16(255))
        path = tmp_path / "a.tiff"
        image.save(path, compression=compression, big_tiff=big)
        data = path.read_bytes()
        assert np.array_equal(np.asarray(opened(rewrite_tiff(data).data)), np.asarray(opened(data)))


def test_a_tag_that_is_there_twice_is_refused() -> None:
    with pytest.raises(IntegrityError, match="tag 277 twice"):
        rewrite_tiff(overread_tiff())


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (replaced(rgb_tags(40, 30) + STRIP, 277, 5, [3]), "tag 277 has 1 values of type 5"),
        (replaced(rgb_tags(40, 30) + STRIP, 277, 3, [3, 3]), "tag 277 has 2 values"),
        (replaced(rgb_tags(40, 30) + STRIP, 277, 3, [7]), "values of a pixel 7"),
        (replaced(rgb_tags(40, 30) + STRIP, 258, 3, [8, 8]), "3 values with 8, 8 bits"),
        (replaced(rgb_tags(40, 30) + STRIP, 258, 3, [5, 6, 5]), "3 values with 5, 6, 5 bits"),
        (replaced(rgb_tags(40, 30) + STRIP, 259, 3, [7]), "compression 7, and 1, 5, 8"),
        (replaced(rgb_tags(40, 30) + STRIP, 262, 3, [6]), "colour space 6"),
        (replaced(rgb_tags(40, 30) + STRIP, 284, 3, [3]), "planes 3"),
        (replaced(rgb_tags(40, 30) + STRIP, 278, 4, [0]), "pieces of 40 x 0 pixels"),
        (replaced(rgb_tags(40, 30) + STRIP, 278, 4, [1]), "where its 30 pieces lie"),
        (replaced(rgb_tags(40, 30) + STRIP, 324, 4, [8]), "both strips and tiles"),
        (rgb_tags(40, 30), "or neither"),
        (rgb_tags(40, 30)[1:] + STRIP, "how large it is"),
        (
            [*rgb_tags(40, 30), (322, 4, [2**31]), (323, 4, [2**31]), (324, 4, [8]), (325, 4, [8])],
            "pieces of 2,147,483,648",
        ),
    ],
)
def test_what_two_readers_could_understand_differently_is_refused(tags: list[TiffTag], reason: str) -> None:
    codes = [(tag, 4 if kind == 5 else kind, values) for tag, kind, values in tags]
    data = bytearray(tiff_file(codes, PIXELS))
    for at, (_, kind, _) in enumerate(tags):
        start = int.from_bytes(data[4:8], "little") + 2 + 12 * at
        data[start + 2] = kind
    with pytest.raises(IntegrityError, match=reason):
        rewrite_tiff(bytes(data))


def test_a_directory_that_is_cut_off_is_refused_wherever_it_ends() -> None:
    data = tiff_file(rgb_tags(40, 30) + STRIP, PIXELS)
    for length in range(4, 8):
        with pytest.raises(IntegrityError, match="cut off"):
            rewrite_tiff(data[:length])
    for length in range(len(PIXELS) + PIXELS_AT, len(data) - 10):
        with pytest.raises(IntegrityError, match="a TIFF"):
            rewrite_tiff(data[:length])


def test_strips_beyond_those_that_cover_the_image_are_left_out() -> None:
    strip = zlib.compress(PIXELS)
    tags = replaced(replaced(rgb_tags(40, 30, 8) + STRIP, 273, 4, [PIXELS_AT] * 9), 279, 4, [len(strip)] * 9)
    image = opened(rewrite_tiff(tiff_file(tags, strip)).data)
    assert len(image.tag_v2[273]) == 1  # type: ignore[attr-defined]
