"""EXIF and XMP: `pipeline.build.orientation.read_orientation`."""

from __future__ import annotations

from PIL import Image

from pipeline.build.orientation import UPRIGHT, read_orientation


def seeds() -> list[bytes]:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112], exif[0x8769] = "a description", 6, {0x9003: "2020:01:01 00:00:00"}
    big_endian = b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    return [
        exif.tobytes(),
        big_endian,
        b'<x tiff:Orientation="8"/>',
        b"<tiff:Orientation>3</tiff:Orientation>",
    ]


def check(data: bytes) -> None:
    """Whatever the bytes are, an orientation comes out; only TIFF's numbers count from two kinds of field."""
    orientation = read_orientation(data, data)
    assert isinstance(orientation, int)
    assert read_orientation(b"Exif\0\0" * 3 + data) == read_orientation(data)
    assert read_orientation(b"") == UPRIGHT
