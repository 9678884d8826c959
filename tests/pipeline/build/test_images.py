"""Every odd input becomes clean RGB, or is rejected with a clear reason."""

from __future__ import annotations

import io
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image, features

from pipeline.build import images
from pipeline.build.images import (
    clean_image,
    convert_to_rgb,
    decode_image,
    encode_image,
    encode_sizes,
    resize_to_square,
)
from pipeline.errors import IntegrityError
from pipeline.records import Encoding, Item, Recipe, ResizeMethod
from tests.image_writers import exif_bomb
from tests.images import jpeg_bytes, make_image
from tests.odd_images import OddImage, odd_images

ITEM = Item("it", 0)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def distance(one: Image.Image, other: Image.Image) -> float:
    first, second = (np.asarray(image, np.float64) for image in (one, other))
    return float(np.abs(first - second).mean())


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "CMYK"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_every_colour_mode_becomes_the_same_image_in_rgb(mode: str, kind: str) -> None:
    storable = {
        "PNG": {"L", "1", "P", "RGB", "RGBA", "LA"},
        "TIFF": {"L", "1", "P", "RGB", "RGBA", "LA", "CMYK"},
        "JPEG": {"L", "RGB", "CMYK"},
    }
    if mode not in storable[kind]:
        pytest.skip(f"{kind} cannot store {mode}")
    image = make_image(1).convert(mode)
    result = clean_image(saved(image, kind), ITEM)
    assert result.mode == "RGB"
    assert distance(result, image.convert("RGB")) < 6


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    result = np.asarray(clean_image(saved(Image.fromarray(ramp), "PNG"), ITEM))
    assert np.array_equal(result[..., 0].ravel(), np.arange(256))


def test_transparent_parts_lie_on_white() -> None:
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    result = clean_image(saved(image, "PNG"), ITEM)
    assert result.getpixel((0, 0)) == (255, 0, 0)
    assert result.getpixel((3, 3)) == (255, 255, 255)


def test_a_palette_with_a_transparent_colour_lies_on_white() -> None:
    image = Image.new("P", (2, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    result = clean_image(saved(image, "PNG", transparency=0), ITEM)
    assert result.getpixel((0, 0)) == (255, 255, 255)
    assert result.getpixel((1, 1)) == (10, 20, 30)


def test_an_rgb_image_may_have_a_transparent_colour_too() -> None:
    image = Image.new("RGB", (2, 2), (9, 9, 9))
    image.putpixel((1, 1), (200, 0, 0))
    result = clean_image(saved(image, "PNG", transparency=(9, 9, 9)), ITEM)
    assert result.getpixel((0, 0)) == (255, 255, 255)
    assert result.getpixel((1, 1)) == (200, 0, 0)


@pytest.mark.parametrize("encoding", ["jpeg:95", "png"])
def test_comments_and_profiles_of_the_source_are_not_stored_again(encoding: str) -> None:
    plain = saved(make_image(1), "JPEG")
    wordy = saved(make_image(1), "JPEG", comment=b"x" * 9999, icc_profile=b"y" * 9999, dpi=(3, 3))
    recipe = Recipe(sizes=(16,), encodings=(Encoding.parse(encoding),))
    assert encode_sizes(wordy, ITEM, recipe) == encode_sizes(plain, ITEM, recipe)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    upright = make_image(2)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = upright.transpose(turns[orientation]) if orientation in turns else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    result = clean_image(saved(stored, "PNG", exif=exif), ITEM)
    assert np.array_equal(np.asarray(result), np.asarray(upright))


WEBP = pytest.param(
    "WEBP", marks=pytest.mark.skipif(not features.check("webp"), reason="a Pillow without WebP")
)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "BMP", WEBP, "TIFF", "PPM"])
def test_content_and_not_the_name_says_what_a_image_is(kind: str) -> None:
    assert distance(clean_image(saved(make_image(3), kind), Item("called.jpg", 0)), make_image(3)) < 20


def test_a_pillow_without_webp_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "check", lambda _: False)
    with pytest.raises(IntegrityError, match="built without WebP"):
        clean_image(b"RIFF\0\0\0\0WEBP", ITEM)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"this is a text, not a picture", "not a picture"),
        (jpeg_bytes(4, 200, 200)[: len(jpeg_bytes(4, 200, 200)) // 2], "truncated"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not a readable PNG picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
)
def test_a_bad_image_is_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError, match=reason):
        clean_image(data, ITEM)


def test_every_cut_of_a_png_is_a_reason_or_the_whole_image() -> None:
    data = saved(make_image(5), "PNG")
    whole = np.asarray(make_image(5))
    for length in range(0, len(data), 7):
        try:
            result = clean_image(data[:length], ITEM)
        except IntegrityError:
            continue
        assert np.array_equal(np.asarray(result), whole)


def test_a_decompression_bomb_is_refused_before_it_takes_memory() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 16384, 16384, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    tracemalloc.start()
    with pytest.raises(IntegrityError, match="16384 x 16384 pixels are more than the limit"):
        clean_image(bomb, ITEM)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_a_crop_is_taken_before_resizing_and_an_impossible_one_is_a_reason() -> None:
    image = make_image(6)
    result = clean_image(saved(image, "PNG"), ITEM._replace(crop=(5, 6, 25, 26)))
    assert np.array_equal(np.asarray(result), np.asarray(image)[6:26, 5:25])
    with pytest.raises(IntegrityError, match="lies outside"):
        clean_image(saved(image, "PNG"), ITEM._replace(crop=(50, 0, 60, 10)))


def test_inverting_swaps_black_and_white() -> None:
    image = Image.new("1", (3, 3), 1)
    assert clean_image(saved(image, "PNG"), ITEM._replace(invert=True)).getpixel((1, 1)) == (0, 0, 0)


def test_arrays_are_images_too() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(np.asarray(clean_image(grey, ITEM))[..., 2], grey)


@pytest.mark.parametrize("shape", [(0, 5), (3, 4, 7), (2, 70_000), (2, 2, 2, 2)])
def test_arrays_that_are_no_images_are_a_reason(shape: tuple[int, ...]) -> None:
    with pytest.raises(IntegrityError, match=r"no picture|limit|side"):
        clean_image(np.zeros(shape, np.uint8), ITEM)


def test_squash_keeps_all_and_crop_keeps_the_middle() -> None:
    image = Image.new("RGB", (60, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    cropped = np.asarray(resize_to_square(image, 8, ResizeMethod("crop", "bilinear")))
    squashed = np.asarray(resize_to_square(image, 8, ResizeMethod("squash")))
    assert (cropped[:, 1:7, 2] > 250).all()
    assert squashed[4, 0, 0] > 250
    assert squashed[4, 4, 2] > 250


@pytest.mark.parametrize("encoding", ["jpeg:95", "png", "raw"])
def test_what_is_stored_is_the_image(encoding: str) -> None:
    data = encode_image(make_image(7), Encoding.parse(encoding))
    if encoding == "raw":
        pixels = np.load(io.BytesIO(data), allow_pickle=False)
    else:
        pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels.shape == (30, 40, 3)
    error = np.abs(pixels.astype(int) - np.asarray(make_image(7))).mean()
    assert error <= (3 if encoding == "jpeg:95" else 0)


def test_all_sizes_come_from_one_decode_of_the_full_image() -> None:
    data = jpeg_bytes(8, 300, 200)
    recipe = Recipe(sizes=(16, 64), encodings=(Encoding.parse("raw"),) * 2)
    small, large = (np.load(io.BytesIO(part)) for part in encode_sizes(data, ITEM, recipe).sizes)
    full = Image.open(io.BytesIO(data))
    lanczos = Image.Resampling.LANCZOS
    assert np.array_equal(small, np.asarray(full.resize((16, 16), lanczos)))
    assert np.array_equal(large, np.asarray(full.resize((64, 64), lanczos)))


@pytest.mark.parametrize("odd", odd_images(), ids=lambda odd: odd.name)
def test_every_odd_image_is_kept_listed_or_refused_as_it_should_be(odd: OddImage) -> None:
    if odd.outcome == "rejected":
        with pytest.raises(IntegrityError, match=re.escape(odd.reason)):
            decode_image(odd.data)
        return
    decoded = decode_image(odd.data)
    assert bool(decoded.damage) == (odd.outcome == "damaged")
    assert odd.reason in decoded.damage
    image = clean_image(decoded.image, ITEM)
    assert image.mode == "RGB"
    if odd.shows is not None:
        assert image.size == odd.shows.size
        assert distance(image, odd.shows.convert("RGB")) < 8


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_has_the_pixels_that_pillow_decodes(mode: str, subsampling: str, *, progressive: bool) -> None:
    for width, height in ((1, 1), (7, 13), (16, 16), (65, 129)):
        image = make_image(width, width, height).convert(mode)
        data = saved(image, "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
        expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        assert np.array_equal(np.asarray(clean_image(data, ITEM)), expected)


def test_exif_of_repeated_headers_takes_time_by_its_length_alone() -> None:
    assert clean_image(exif_bomb(4_000_000, jpeg_bytes(1)), ITEM).size == (
        40,
        30,
    )  # a quadratic reader takes half an hour


def test_metadata_is_gone_before_a_decoder_sees_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[bytes] = []
    pillow = Image.open

    def open_and_note(file: io.BytesIO, **options: object) -> Image.Image:
        opened.append(file.getvalue())
        return pillow(file, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", open_and_note)
    for odd in odd_images():
        if odd.outcome == "kept" and "turned" in odd.name:
            decode_image(odd.data)
    assert len(opened) == 2 + bool(features.check("webp"))  # PNG, TIFF, WebP; not the JPEGs
    assert not any(word in data for data in opened for word in (b"Exif", b"EXIF", b"xmp", b"Orientation"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "F"])
def test_an_image_that_is_converted_in_bands_is_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (37, 20))
    image = {
        "RGBA": lambda: Image.fromarray((np.stack([values] * 4, -1) >> 8).astype(np.uint8)),
        "LA": lambda: Image.fromarray((np.stack([values] * 2, -1) >> 8).astype(np.uint8)),
        "I;16": lambda: Image.fromarray(values.astype(np.uint16)),
        "F": lambda: Image.fromarray(values.astype(np.float32)),
    }[mode]()
    assert image.mode == mode
    whole = np.asarray(convert_to_rgb(image))
    monkeypatch.setattr(images, "BAND_PIXELS", 100)
    assert np.array_equal(np.asarray(convert_to_rgb(image)), whole)
