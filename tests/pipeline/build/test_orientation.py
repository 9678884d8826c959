"""The orientation of EXIF and XMP is what Pillow reads, for less work."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.build.orientation import UPRIGHT, read_orientation, turn_upright
from tests.images import make_image


def exif(*entries: bytes, order: str = "<") -> bytes:
    """EXIF with one directory of these entries."""
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}LH", 8, len(entries))
    return b"Exif\0\0" + head + b"".join(entries) + bytes(4)


def entry(value: int, kind: int = 3, count: int = 1, order: str = "<") -> bytes:
    """An entry that says the orientation; a SHORT by default."""
    packed = struct.pack(f"{order}{'H' if kind == 3 else 'L'}", value)
    return struct.pack(f"{order}HHL", 0x0112, kind, count) + packed.ljust(4, b"\0")


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_is_found_in_either_byte_order(order: str) -> None:
    assert read_orientation(exif(entry(6, order=order), order=order)) == 6


@pytest.mark.parametrize("orientation", range(10))
def test_an_image_is_turned_as_pillow_turns_it(orientation: int) -> None:
    image = make_image(1)
    image.getexif()[0x0112] = orientation
    turned = turn_upright(make_image(1), read_orientation(image.getexif().tobytes()))
    assert np.array_equal(np.asarray(turned), np.asarray(ImageOps.exif_transpose(image)))


def test_of_two_entries_the_last_one_counts_and_other_types_do_not() -> None:
    assert read_orientation(exif(entry(3), entry(8))) == 8
    assert read_orientation(exif(entry(8, kind=4))) == 8
    assert read_orientation(exif(entry(8), entry(3, kind=5))) == 8
    assert read_orientation(exif(entry(8, count=0))) == UPRIGHT


def test_data_that_ends_early_says_what_came_before_the_end() -> None:
    whole = exif(entry(6), entry(6))
    for length in range(len(whole)):
        assert read_orientation(whole[:length]) == (6 if length >= 26 else UPRIGHT)
    assert read_orientation(b"Exif\0\0MM\0*\xff\xff\xff\xff") == UPRIGHT


def test_xmp_counts_where_exif_says_nothing() -> None:
    xmp = b'<rdf:Description tiff:Orientation="3"/>'
    assert read_orientation(b"", xmp) == 3
    assert read_orientation(b"", b"<tiff:Orientation>8</tiff:Orientation>") == 8
    assert read_orientation(exif(entry(6)), xmp) == 6
    assert read_orientation(exif(entry(1)), xmp) == UPRIGHT


def test_repeated_headers_are_skipped_in_one_pass() -> None:
    assert read_orientation(b"Exif\0\0" * 2_000_000 + exif(entry(6))) == 6


def test_an_unknown_orientation_changes_nothing() -> None:
    image = Image.new("RGB", (2, 3))
    assert turn_upright(image, 0) is turn_upright(image, 9) is image
