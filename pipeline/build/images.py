"""Turn one item into an encoded image of each size: decoded once, upright RGB, read back.

Pillow decodes and resizes (pillow-simd, where it is installed, about eight times faster);
simplejpeg re-reads every JPEG that is written.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import IntegrityError
from pipeline.layout import npy_header
from pipeline.records import Encoding, Item, Pixels, Recipe, ResizeMethod

IMAGE_FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
"""Recognised by content, never by name. No format for which Pillow runs another program."""
RESAMPLING_FILTERS: Final = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
DECODE_ERRORS: Final = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError)
"""The errors of Pillow's readers on damaged files; its UnidentifiedImageError is an OSError."""
UPRIGHT: Final = 1  # EXIF orientation
SMALLEST_SCALE: Final = 1  # pixels; libjpeg then scales by 1/8: reads all bits, transforms few

Image.MAX_IMAGE_PIXELS = None  # the lower PIXEL_LIMIT is checked below, before decoding


def library_versions() -> dict[str, str]:
    """The versions that decide the bytes; other ones differ by a grey level or two."""
    return {
        "pillow": PIL.__version__,
        "libjpeg": str(features.version("libjpeg_turbo") or features.version("jpg")),
        "zlib": str(features.version("zlib")),
        "numpy": np.__version__,
    }


def encode_sizes(pixels: Pixels, item: Item, recipe: Recipe) -> list[bytes]:
    """The encoded image of each size. Raises IntegrityError with the reason if there can be none."""
    image = clean_image(pixels, item)
    return [
        encode_image(resize_to_square(image, size, recipe.resizing), encoding)
        for size, encoding in zip(recipe.sizes, recipe.encodings, strict=True)
    ]


def clean_image(pixels: Pixels, item: Item) -> Image.Image:
    """The item's image as upright RGB, cropped and inverted as the item says."""
    image = _decode(pixels) if isinstance(pixels, bytes) else Image.fromarray(pixels)
    if item.crop is not None:
        image = _crop(image, item.crop)
    image = convert_to_rgb(image)
    image.info = {}  # comments, profiles and transparency would be written into every size
    return ImageOps.invert(image) if item.invert else image


def _decode(data: bytes) -> Image.Image:
    if not data:
        raise IntegrityError("the file is empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=IMAGE_FORMATS)
        if image.width * image.height > PIXEL_LIMIT:
            raise IntegrityError(
                f"{image.width} x {image.height} pixels are more than the limit of {PIXEL_LIMIT:,}"
            )
        image.load()
    except UnidentifiedImageError:
        if data[8:12] == b"WEBP" and not features.check("webp"):
            raise IntegrityError(
                "a WebP image, and this Pillow was built without WebP (set-up says what to install)"
            ) from None
        raise IntegrityError(f"not a picture (it starts with {data[:8]!r})") from None
    except DECODE_ERRORS as error:
        raise IntegrityError(f"cannot be decoded: {error}") from error
    if image.getexif().get(0x0112, UPRIGHT) != UPRIGHT:
        image = ImageOps.exif_transpose(image)
    return image


def _crop(image: Image.Image, crop: tuple[int, int, int, int]) -> Image.Image:
    left, upper, right, lower = crop
    right, lower = min(right, image.width), min(lower, image.height)
    if not (0 <= left < right and 0 <= upper < lower):
        raise IntegrityError(f"the crop {crop} lies outside {image.width} x {image.height} pixels")
    return image.crop((left, upper, right, lower))


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Eight bits and three channels from any mode; transparent parts become white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """16-bit and float greys scaled to eight bits, where Pillow's own conversion would clip them."""
    wide = values.astype(np.float64)
    top = np.iinfo(np.uint16).max if values.dtype.kind in "iu" else max(float(wide.max()), 1.0)
    return np.clip(np.rint(wide * (255 / top)), 0, 255).astype(np.uint8)


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
