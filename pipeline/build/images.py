"""Turn one item into an encoded image of each size: decoded once, upright RGB, read back.

`image_files` reduces the file to what its pixels need. simplejpeg decodes JPEGs, strictly, and re-reads those
that are written; Pillow decodes the other formats and the JPEGs that are damaged or rare, and resizes
(pillow-simd, where it is installed, about eight times faster).

All limits are of work and memory that the file itself asks for, and none is of time, so that a loaded machine
builds the same shards as an idle one. A worker stays below 1 GB.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError, features

from pipeline.build.image_files import ReducedImage, reduce_image
from pipeline.build.orientation import turn_upright
from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import IntegrityError
from pipeline.layout import npy_header
from pipeline.records import Encoding, Item, Pixels, Recipe, ResizeMethod

RESAMPLING_FILTERS: Final = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
DECODE_ERRORS: Final = (
    *(OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError),
    *(OverflowError, struct.error, zlib.error),
)
"""The errors of Pillow's readers on damaged files; its UnidentifiedImageError is an OSError."""
SIDE_LIMIT: Final = 65_535  # pixels, as in a JPEG; resizing a longer side takes gigabytes
WEBP_PIXEL_LIMIT: Final = PIXEL_LIMIT // 2  # libwebp holds an image four times
SCAN_PIXEL_LIMIT: Final = 16 * PIXEL_LIMIT  # of all scans of a JPEG: some ten seconds; cameras write 10 scans
SLOW_PIXEL_LIMIT: Final = 4 * 2**20  # of images that Pillow decodes in Python: some seconds
SLOW_BYTE_LIMIT: Final = 64 * 2**20  # the same in numbers that are written out
SLOW_DECODERS: Final = ("bmp_rle", "ppm", "ppm_plain")
COMMENT_LIMIT: Final = 1000  # in a text of pixels: each one is cut out of a copy
BAND_PIXELS: Final = 1 << 20  # converted at a time, so that a conversion takes a few MB beside the image
SMALLEST_SCALE: Final = 1  # pixels; libjpeg then scales by 1/8: reads all bits, transforms few
PRINT_COLOURS: Final = "CMYK"
JPEG_COLOURS: Final = {
    "Gray": "GRAY",
    "YCbCr": "RGB",
    "RGB": "RGB",
    "CMYK": PRINT_COLOURS,
    "YCCK": PRINT_COLOURS,
}
"""What simplejpeg decodes each of its colour spaces to."""
JPEG_DAMAGE: Final = ("Corrupt JPEG data", "Premature end", "Inconsistent progression", "Invalid SOS")
"""How libjpeg's warnings begin that are about data."""

Image.MAX_IMAGE_PIXELS = None  # the lower PIXEL_LIMIT is checked below, before decoding


class DecodedImage(NamedTuple):
    """An image of any mode as its file holds it, and what is wrong with it although it can be seen."""

    image: Image.Image
    damage: str = ""


class EncodedImage(NamedTuple):
    """The encoded image of each size, and what is wrong with the source although it could be decoded."""

    sizes: list[bytes]
    damage: str


def library_versions() -> dict[str, str]:
    """The versions that decide the bytes; other ones differ by a grey level or two."""
    return {
        "pillow": PIL.__version__,
        "libjpeg": str(features.version("libjpeg_turbo") or features.version("jpg")),
        "zlib": str(features.version("zlib")),
        "numpy": np.__version__,
    }


def encode_sizes(pixels: Pixels, item: Item, recipe: Recipe) -> EncodedImage:
    """The encoded image of each size. Raises IntegrityError with the reason if there can be none."""
    decoded = decode_image(pixels)
    image = clean_image(decoded.image, item)
    sizes = [
        encode_image(resize_to_square(image, size, recipe.resizing), encoding)
        for size, encoding in zip(recipe.sizes, recipe.encodings, strict=True)
    ]
    return EncodedImage(sizes, decoded.damage)


def clean_image(pixels: Pixels | Image.Image, item: Item) -> Image.Image:
    """The item's image as upright RGB, cropped and inverted as the item says."""
    image = pixels if isinstance(pixels, Image.Image) else decode_image(pixels).image
    if item.crop is not None:
        image = _crop(image, item.crop)
    image = convert_to_rgb(image)
    image.info = {}  # comments, profiles and transparency would be written into every size
    return ImageOps.invert(image) if item.invert else image


def decode_image(pixels: Pixels) -> DecodedImage:
    """Decode an image file, or take pixels as they are; upright. Raises IntegrityError with the reason."""
    if not isinstance(pixels, bytes):
        return DecodedImage(_take_pixels(pixels))
    if not pixels:
        raise IntegrityError("the file is empty")
    reduced = reduce_image(pixels)
    if reduced.size is not None:
        _check_size(*reduced.size, reduced.format, reduced.scans)
    image, damage = _decode_jpeg(reduced) if reduced.format == "JPEG" else (_decode_by_pillow(reduced), "")
    return DecodedImage(turn_upright(image, reduced.orientation), damage)


def _take_pixels(pixels: NDArray[np.uint8]) -> Image.Image:
    try:
        image = Image.fromarray(pixels)
    except DECODE_ERRORS as error:
        raise IntegrityError(f"an array of {pixels.shape} is no picture") from error
    _check_size(*image.size)
    return image


def _check_size(width: int, height: int, kind: str = "", scans: int = 1) -> None:
    """Raise IntegrityError for an image whose decoding would take too much memory or work."""
    limit = WEBP_PIXEL_LIMIT if kind == "WEBP" else PIXEL_LIMIT
    if not 1 <= width * height <= limit:
        raise IntegrityError(f"{width} x {height} pixels are more than the limit of {limit:,}, or none")
    if max(width, height) > SIDE_LIMIT:
        raise IntegrityError(f"{width} x {height} pixels have a side of more than {SIDE_LIMIT:,}")
    if width * height * scans > SCAN_PIXEL_LIMIT:
        raise IntegrityError(
            f"{scans:,} scans of {width} x {height} pixels are more than the limit of {SCAN_PIXEL_LIMIT:,} "
            "for all together"
        )


def _decode_jpeg(reduced: ReducedImage) -> DecodedImage:
    """Decode strictly; what is damaged or rare is left to Pillow, which fills gaps with grey."""
    damage = ""
    try:
        colours = JPEG_COLOURS[simplejpeg.decode_jpeg_header(reduced.data)[2]]
        pixels = simplejpeg.decode_jpeg(reduced.data, colours)
        if colours != PRINT_COLOURS:  # Pillow rounds these otherwise when they become RGB
            return DecodedImage(Image.fromarray(pixels[..., 0] if colours == "GRAY" else pixels))
    except (ValueError, KeyError) as error:
        damage = str(error) if str(error).startswith(JPEG_DAMAGE) else ""
    return DecodedImage(_decode_by_pillow(reduced), damage)


def _decode_by_pillow(reduced: ReducedImage) -> Image.Image:
    if reduced.format == "WEBP" and not features.check("webp"):
        raise IntegrityError(
            "a WebP image, and this Pillow was built without WebP (set-up says what to install)"
        )
    try:
        image: Image.Image = Image.open(io.BytesIO(reduced.data), formats=(reduced.format,))
        _check_size(*image.size, reduced.format)
        _check_slow_decoder(image, reduced.data)
        image.load()
    except UnidentifiedImageError:
        raise IntegrityError(f"cannot be decoded: not a readable {reduced.format} picture") from None
    except DECODE_ERRORS as error:
        raise IntegrityError(f"cannot be decoded: {error}") from error
    return image


def _check_slow_decoder(image: Image.Image, data: bytes) -> None:
    """Raise IntegrityError for a large image that Pillow would decode in Python."""
    decoder = image.tile[0][0] if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    if decoder not in SLOW_DECODERS:
        return
    if image.width * image.height > SLOW_PIXEL_LIMIT or len(data) > SLOW_BYTE_LIMIT:
        raise IntegrityError(
            f"{image.width} x {image.height} pixels in {len(data):,} bytes of a slow form of {image.format}; "
            f"of that {SLOW_PIXEL_LIMIT:,} pixels are read at most: save it as PNG"
        )
    if data.count(b"#") > COMMENT_LIMIT:
        raise IntegrityError(f"more than {COMMENT_LIMIT:,} comments between pixels")


def _crop(image: Image.Image, crop: tuple[int, int, int, int]) -> Image.Image:
    left, upper, right, lower = crop
    right, lower = min(right, image.width), min(lower, image.height)
    if not (0 <= left < right and 0 <= upper < lower):
        raise IntegrityError(f"the crop {crop} lies outside {image.width} x {image.height} pixels")
    return image.crop((left, upper, right, lower))


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Eight bits and three channels from any mode; transparent parts become white."""
    if image.mode.startswith("I") or image.mode == "F":
        return _convert_in_bands(image, _grey_converter(image))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _convert_in_bands(image, _lay_on_white)
    return image if image.mode == "RGB" else image.convert("RGB")


def _convert_in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert some rows at a time: steps between hold a band and not the image."""
    rows = max(1, BAND_PIXELS // image.width)
    if rows >= image.height:
        return convert(image)
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        result.paste(convert(image.crop((0, top, image.width, bottom))), (0, top))
    return result


def _lay_on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _grey_converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """16-bit and float greys are scaled to eight bits, where Pillow's own conversion would clip them."""
    top: float = np.iinfo(np.uint16).max
    if image.mode == "F":
        brightest = image.getextrema()[1]
        assert isinstance(brightest, float)
        top = max(1.0, brightest)

    def convert(band: Image.Image) -> Image.Image:
        return Image.fromarray(_eight_bits(np.asarray(band), top)).convert("RGB")

    return convert


def _eight_bits(values: NDArray[np.generic], top: float) -> NDArray[np.uint8]:
    with np.errstate(invalid="ignore"):  # numpy warns of some NaNs, which become black
        wide = np.clip(np.nan_to_num(values.astype(np.float64)), 0, top)
    return np.rint(wide * (255 / top)).astype(np.uint8)


def resize_to_square(image: Image.Image, size: int, how: ResizeMethod) -> Image.Image:
    """Resize to a square of `size` pixels."""
    box = None
    if how.shape == "crop":
        side = min(image.size)
        left, upper = (image.width - side) / 2, (image.height - side) / 2
        box = (left, upper, left + side, upper + side)
    return image.resize((size, size), RESAMPLING_FILTERS[how.filter], box=box)


def encode_image(image: Image.Image, encoding: Encoding) -> bytes:
    """Encode an image, and read it back so that no loader meets a bad one."""
    if encoding.format == "raw":
        return npy_header(*image.size) + image.tobytes()
    buffer = io.BytesIO()
    if encoding.format == "png":
        image.save(buffer, "PNG")
    else:
        colour = "4:4:4" if encoding.full_colour else "4:2:0"
        image.save(buffer, "JPEG", quality=encoding.quality, subsampling=colour)
    data = buffer.getvalue()
    _check_reads_back(data, encoding, image)
    return data


def _check_reads_back(data: bytes, encoding: Encoding, image: Image.Image) -> None:
    if encoding.format == "jpeg":
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        simplejpeg.decode_jpeg(
            data, "GRAY", fastdct=True, min_height=SMALLEST_SCALE, min_width=SMALLEST_SCALE
        )
        same = (width, height) == image.size
    else:
        same = np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))
    if not same:
        raise IntegrityError(f"the written {encoding} does not read back as the same picture")
