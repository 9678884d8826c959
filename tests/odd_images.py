"""Image files of every odd kind that sources hold or strangers make, each with what a build must do with it."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, Literal, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin, features

from tests.image_writers import (
    PIXELS_AT,
    PNG_START,
    TiffTag,
    deflated_zeros,
    encoded,
    exif_bomb,
    jpeg_segment,
    many_scans,
    overread_tiff,
    png_chunk,
    png_file,
    rgb_tags,
    shared_values_tiff,
    tiff_file,
    with_segments,
)
from tests.images import make_image

WIDTH, HEIGHT = 40, 30
CHECKED: Final = make_image(1, WIDTH, HEIGHT)
"""The picture that all whole files show, near enough to be compared with it."""
NO_NUMBERS: Final = np.array([[0x7FA00000, 0x7FC00000, 0x7F800000, 0xFF800000]], np.uint32).view(np.float32)
"""Two kinds of NaN, and both infinities."""
EXIF_ORIENTATION: Final = 0x0112
QUARTER_TURN: Final = 6  # the orientation of a camera on its side


class OddImage(NamedTuple):
    """An image file, and what a build does with it."""

    name: str
    data: bytes
    outcome: Literal["kept", "damaged", "rejected"]
    """damaged: kept, and listed."""
    reason: str = ""
    """A part of the reason of the last two."""
    shows: Image.Image | None = None
    """What a kept one shows."""


@lru_cache
def odd_images() -> tuple[OddImage, ...]:
    """All of them; the same ones each time."""
    makers = (_jpegs, _pngs, _gifs, _bitmaps, _tiffs, _webps, _damaged, _rejected, _bombs)
    return tuple(image for maker in makers for image in maker())


def kept(name: str, data: bytes, shows: Image.Image | None = CHECKED) -> OddImage:
    return OddImage(name, data, "kept", "", shows)


def rejected(name: str, data: bytes, reason: str) -> OddImage:
    return OddImage(name, data, "rejected", reason)


def _jpegs() -> Iterator[OddImage]:
    plain = encoded(CHECKED, "JPEG", quality=95)
    turned = CHECKED.transpose(Image.Transpose.ROTATE_90)
    exif, wrong = Image.Exif(), Image.Exif()
    exif[EXIF_ORIENTATION], wrong[EXIF_ORIENTATION] = QUARTER_TURN, 9
    xmp = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description tiff:Orientation="6"/>'
    yield kept("colour.jpg", plain)
    yield kept("grey.jpg", encoded(CHECKED.convert("L"), "JPEG"), CHECKED.convert("L"))
    yield kept("print.jpg", encoded(CHECKED.convert("CMYK"), "JPEG"))
    yield kept("rgb.jpg", encoded(CHECKED, "JPEG", keep_rgb=True))
    yield kept("progressive.jpg", encoded(CHECKED, "JPEG", progressive=True))
    yield kept("full colour.jpg", encoded(CHECKED, "JPEG", subsampling="4:4:4"))
    yield kept("half colour.jpg", encoded(CHECKED, "JPEG", subsampling="4:2:2"))
    yield kept("restarts.jpg", encoded(CHECKED, "JPEG", restart_marker_blocks=1))
    yield kept("one pixel.jpg", encoded(Image.new("RGB", (1, 1), "red"), "JPEG"), None)
    yield kept("turned.jpg", encoded(turned, "JPEG", exif=exif))
    yield kept("turned by XMP.jpg", with_segments(encoded(turned, "JPEG"), jpeg_segment(0xE1, xmp)))
    yield kept("turned wrongly.jpg", encoded(CHECKED, "JPEG", exif=wrong))
    yield kept("cut EXIF.jpg", with_segments(plain, jpeg_segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff")))
    yield kept("repeated EXIF.jpg", exif_bomb(100_000, plain))
    yield kept("rest behind it.jpg", plain + b"rest" * 99)
    yield kept("comments.jpg", with_segments(plain, *[jpeg_segment(0xFE, b"x" * 99)] * 999))
    yield kept("preview.jpg", with_segments(plain, jpeg_segment(0xE2, plain)))
    yield kept("two pictures.jpg", encoded(CHECKED, "MPO", save_all=True, append_images=[make_image(2)]))
    yield kept("gaps.jpg", plain.replace(b"\xff\xdb", b"\0\0\xff\xff\xff\xdb"))


def _pngs() -> Iterator[OddImage]:
    clear = CHECKED.convert("RGBA")
    palette = CHECKED.convert("P")
    deep = np.asarray(CHECKED).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    grey = np.asarray(CHECKED.convert("L")).astype(np.uint16) * 257
    bomb = png_chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + deflated_zeros(1 << 27))
    plain = encoded(CHECKED, "PNG")
    spoilt = bytearray(png_chunk(b"tIME", bytes(7)))
    spoilt[-1] ^= 1
    yield kept("named.jpg", plain)
    yield kept("bits.png", encoded(CHECKED.convert("1"), "PNG"), CHECKED.convert("1"))
    yield kept("palette.png", encoded(palette, "PNG"), palette)
    yield kept("see-through palette.png", encoded(palette, "PNG", transparency=255), None)
    yield kept("grey and alpha.png", encoded(CHECKED.convert("LA"), "PNG"), CHECKED.convert("L"))
    yield kept("alpha.png", encoded(clear, "PNG"))
    yield kept("see-through colour.png", encoded(CHECKED, "PNG", transparency=(1, 2, 3)))
    yield kept("deep grey.png", encoded(Image.fromarray(grey), "PNG"), CHECKED.convert("L"))
    yield kept("deep colour.png", png_file((WIDTH, HEIGHT, 16, 2, 0), zlib.compress(rows)))
    yield kept("interlaced.png", png_file((1, 1, 8, 2, 1), zlib.compress(b"\0\xff\0\0")), None)
    yield kept("moving.png", encoded(CHECKED, "PNG", save_all=True, append_images=[make_image(2)]))
    yield kept("inflating text.png", plain[:33] + bomb + plain[33:])
    yield kept("spoilt date.png", plain[:33] + bytes(spoilt) + plain[33:])
    yield kept("turned.png", _turned_png())


def _turned_png() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", '<rdf:Description tiff:Orientation="6"/>', zip=True)
    return encoded(CHECKED.transpose(Image.Transpose.ROTATE_90), "PNG", pnginfo=info)


def _gifs() -> Iterator[OddImage]:
    palette = CHECKED.quantize(64)
    plain = encoded(palette, "GIF")
    at = plain.index(b",")
    head = 13 + 3 * 64
    wide = bytearray(plain)
    wide[6:10] = struct.pack("<HH", 5, 5)
    yield kept("plain.gif", plain, palette)
    yield kept(
        "moving.gif", encoded(palette, "GIF", save_all=True, append_images=[make_image(2)] * 3), palette
    )
    yield kept("see-through.gif", encoded(palette, "GIF", transparency=63), None)
    yield kept("comments.gif", plain[:head] + b"!\xfe\1x\0" * 90_000 + plain[at:], palette)
    yield kept("longer than its screen.gif", bytes(wide), palette)


def _bitmaps() -> Iterator[OddImage]:
    grey = np.asarray(CHECKED.convert("L"))
    text = " ".join(map(str, np.asarray(CHECKED).ravel()))
    wide = grey.astype(">u2") * 257
    yield kept("colour.bmp", encoded(CHECKED, "BMP"))
    yield kept("bits.bmp", encoded(CHECKED.convert("1"), "BMP"), CHECKED.convert("1"))
    yield kept("runs.bmp", _runs(), None)
    yield kept("bytes.ppm", encoded(CHECKED, "PPM"))
    yield kept("commented.ppm", b"P6 # a comment\n40 30 255\n" + CHECKED.tobytes())
    yield kept("deep.pgm", b"P5 40 30 65535\n" + wide.tobytes(), CHECKED.convert("L"))
    yield kept("text.ppm", f"P3\n40 30\n255\n{text}\n".encode())
    yield kept("bits.pbm", encoded(CHECKED.convert("1"), "PPM"), CHECKED.convert("1"))


def _runs() -> bytes:
    """A BMP of 8 x 8 pixels, in runs of equal ones."""
    palette, rows = bytes(range(256)) * 4, b"\x08\x05\0\0" * 8 + b"\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return struct.pack("<2sIHHI", b"BM", 14 + 40 + 1024 + len(rows), 0, 0, 1078) + head + palette + rows


def _tiffs() -> Iterator[OddImage]:
    pixels = CHECKED.tobytes()
    grey = np.asarray(CHECKED.convert("L"))
    strips: list[TiffTag] = [(273, 4, [PIXELS_AT]), (278, 4, [HEIGHT]), (279, 4, [len(pixels)])]
    padded = np.zeros((32, 64, 3), np.uint8)
    padded[:HEIGHT, :WIDTH] = np.asarray(CHECKED)
    tiles = [zlib.compress(np.ascontiguousarray(padded[:, at : at + 32]).tobytes()) for at in (0, 32)]
    places: list[TiffTag] = [(322, 4, [32]), (323, 4, [32]), (324, 4, [PIXELS_AT, PIXELS_AT + len(tiles[0])])]
    sizes: list[TiffTag] = [(325, 4, [len(tile) for tile in tiles])]
    odd = [tag for tag in rgb_tags(WIDTH, HEIGHT) if tag[0] != 284]
    yield kept("colour.tiff", encoded(CHECKED, "TIFF"))
    yield kept("big-endian.tiff", tiff_file(rgb_tags(WIDTH, HEIGHT) + strips, pixels, ">"))
    yield kept("shuffled tags.tiff", tiff_file([*strips, *reversed(odd)], pixels))
    yield kept("tiles.tiff", tiff_file(rgb_tags(WIDTH, HEIGHT, 8) + places + sizes, b"".join(tiles)))
    yield kept("large form.tiff", encoded(CHECKED, "TIFF", big_tiff=True))
    yield kept("bits.tiff", encoded(CHECKED.convert("1"), "TIFF"), CHECKED.convert("1"))
    yield kept("deep.tiff", encoded(Image.fromarray(grey * np.uint16(257)), "TIFF"), CHECKED.convert("L"))
    yield kept("float.tiff", encoded(Image.fromarray(grey.astype(np.float32)), "TIFF"), None)
    yield kept("no numbers.tiff", encoded(Image.fromarray(NO_NUMBERS), "TIFF"), None)
    yield kept("turned.tiff", encoded(_turned(), "TIFF", tiffinfo={274: QUARTER_TURN}))


def _turned() -> Image.Image:
    return CHECKED.transpose(Image.Transpose.ROTATE_90)


def _webps() -> Iterator[OddImage]:
    huge = b"WEBPVP8X\n\0\0\0\2\0\0\0\xff\xff\xff\xff\0\0"
    if features.check("webp"):
        yield kept("lossy.webp", encoded(CHECKED, "WEBP", quality=90))
        yield kept("alpha.webp", encoded(CHECKED.convert("RGBA"), "WEBP", lossless=True))
        yield kept(
            "moving.webp",
            encoded(CHECKED, "WEBP", lossless=True, save_all=True, append_images=[make_image(2)]),
        )
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = QUARTER_TURN
        yield kept("turned.webp", encoded(_turned(), "WEBP", lossless=True, exif=exif))
    yield rejected("huge.webp", b"RIFF" + struct.pack("<L", len(huge)) + huge, "16777216 x 256 pixels")


def _damaged() -> Iterator[OddImage]:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise).resize((300, 300)), "JPEG", quality=90)
    half = data[: len(data) // 2] + b"\xff\xd9"
    yield OddImage("half and an end.jpg", half, "damaged", "premature end of data segment")
    yield OddImage(
        "bytes before the end.jpg", data[:-2] + b"\1\2\3\4" * 99 + data[-2:], "damaged", "extraneous bytes"
    )
    restarts = encoded(make_image(3, 64, 64), "JPEG", restart_marker_blocks=1)
    yield OddImage("lost restart.jpg", restarts.replace(b"\xff\xd2", b"", 1), "damaged", "extraneous bytes")


def _rejected() -> Iterator[OddImage]:
    jpeg, png = encoded(make_image(4, 200, 200), "JPEG"), encoded(make_image(4, 200, 200), "PNG")
    strips: list[TiffTag] = [(273, 4, [PIXELS_AT]), (278, 4, [HEIGHT]), (279, 4, [3600])]
    pixels = CHECKED.tobytes()
    frame = jpeg_segment(0xC0, b"\x08\0\x10\0\x10\1\1\x11\0")
    yield rejected("empty.jpg", b"", "empty")
    yield rejected("text.jpg", b"this is a text, not a picture", "not a picture")
    yield rejected("half.jpg", jpeg[: len(jpeg) // 2], "cannot be decoded")
    yield rejected("head.jpg", jpeg[:100], "cannot be decoded")
    yield rejected("two frames.jpg", with_segments(jpeg, frame), "2 whole frames")
    yield rejected("half.png", png[: len(png) // 2], "cannot be decoded")
    yield rejected("head.png", PNG_START + bytes(40), "not a readable PNG picture")
    yield rejected("no height.png", png_file((9, 0, 8, 2, 0), zlib.compress(b"")), "not a readable PNG")
    yield rejected("page.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture")
    yield rejected("drawing.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not a picture")
    yield rejected("phone.heic", b"\0\0\0\x18ftypheic" + bytes(20), "not a picture")
    yield rejected("no picture.gif", b"GIF89a\1\0\1\0\0\0\0;", "not a readable GIF")
    yield rejected("same tag twice.tiff", overread_tiff(), "tag 277 twice")
    yield rejected("fax.tiff", tiff_file(rgb_tags(WIDTH, HEIGHT, 4) + strips, pixels), "compression 4")
    yield rejected("no strips.tiff", tiff_file(rgb_tags(WIDTH, HEIGHT), pixels), "neither")
    yield rejected("half.tiff", tiff_file(rgb_tags(WIDTH, HEIGHT) + strips, pixels[:900])[:900], "cut off")


def _bombs() -> Iterator[OddImage]:
    yield rejected("thin.png", png_file((1, 2**26, 8, 0, 0), deflated_zeros(2**27)), "have a side of more")
    yield rejected(
        "huge.png", png_file((16384, 16384, 8, 2, 0), deflated_zeros(10**7)), "more than the limit"
    )
    yield rejected("scans.jpg", many_scans(4096, 100), "scans of 4096 x 4096 pixels")
    yield rejected("shared values.tiff", shared_values_tiff(5000, 1 << 20), "5,001 tags")
    yield rejected("long.ppm", b"P3\n4096 4096\n255\n" + b"0 " * 99, "a slow form of PPM")
    yield rejected("comments.ppm", b"P3\n9 9\n255\n" + b"#\n" * 99_999, "comments between pixels")
