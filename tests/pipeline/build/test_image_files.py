"""A reduced file holds what its pixels need, in a bounded number of parts."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from pipeline.build.image_files import MOST_PARTS, reduce_image
from pipeline.errors import IntegrityError
from tests.image_writers import PNG_START, encoded, jpeg_segment, many_scans, png_chunk, with_segments
from tests.images import make_image
from tests.odd_images import odd_images

BY_NAME = {odd.name: odd.data for odd in odd_images()}


def test_a_jpeg_without_metadata_stays_as_it_is() -> None:
    data = encoded(make_image(1), "JPEG")
    assert reduce_image(data).data == data


def test_a_jpeg_loses_notes_profiles_comments_and_previews_and_keeps_its_colours() -> None:
    data = encoded(make_image(1), "JPEG")
    adobe = jpeg_segment(0xEE, b"Adobe\0\x64\0\0\0\0\1")
    wordy = [jpeg_segment(marker, b"words") for marker in (0xE1, 0xE2, 0xED, 0xFE)]
    assert reduce_image(with_segments(data, *wordy, adobe, *wordy)).data == with_segments(data, adobe)


def test_the_scans_of_a_progressive_jpeg_are_counted_and_a_plain_one_has_one() -> None:
    assert reduce_image(encoded(make_image(1), "JPEG")).scans == 1
    few = reduce_image(encoded(Image.new("L", (9, 9)), "JPEG", progressive=True)).scans
    assert reduce_image(many_scans(9, 500)).scans == few - 1 + 500


def test_a_png_keeps_its_pixels_and_colours_alone() -> None:
    image = make_image(1).quantize(8)
    plain = encoded(image, "PNG", transparency=2)
    head = 8 + 25  # signature and header
    wordy = plain[:head] + png_chunk(b"tEXt", b"a\0b") + png_chunk(b"iCCP", b"c") + plain[head:]
    assert reduce_image(wordy).data == plain
    assert reduce_image(plain[:-20]).data == plain[:-20]


def test_a_gif_is_its_first_image_without_comments() -> None:
    reduced = reduce_image(BY_NAME["comments.gif"]).data
    assert reduced == reduce_image(BY_NAME["plain.gif"]).data
    assert Image.open(io.BytesIO(reduced)).size == (40, 30)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + jpeg_segment(0xFE, b"") * (MOST_PARTS + 1),
        PNG_START + png_chunk(b"IDAT", b"") * (MOST_PARTS + 1),
        b"GIF89a" + bytes(7) + b"!\xfe\0" * (MOST_PARTS + 1) + b",",
    ],
)
def test_a_file_in_too_many_parts_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="more than 100,000 parts"):
        reduce_image(data)


@pytest.mark.parametrize("name", ["lossy.webp", "alpha.webp", "moving.webp"])
def test_the_size_of_a_webp_is_known_before_it_is_opened(name: str) -> None:
    if name not in BY_NAME:
        pytest.skip("a Pillow without WebP")
    assert reduce_image(BY_NAME[name]).size == (40, 30)
