"""One item becomes encoded pictures at each size: decoded once, clean RGB, upright, checked.

Pillow does the pixels (pillow-simd where it is installed, the same code about eight times faster);
simplejpeg re-reads every JPEG we write.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import IntegrityError
from pipeline.records import Encoding, Item, Pixels, Recipe, Resizing

FORMATS: Final = ("JPEG", "PNG", "GIF", "BMP", "PPM", "WEBP", "TIFF")
"""Recognised by content, never by name. No format that runs another program."""
FILTERS: Final = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}
DECODE_ERRORS: Final = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, KeyError)
"""What Pillow's format readers raise on damaged files; its own UnidentifiedImageError is an OSError."""
UPRIGHT: Final = 1  # EXIF orientation
SMALLEST_SCALE: Final = (
    1  # pixels; makes libjpeg scale by 1/8: all bits are read, few are transformed
)

Image.MAX_IMAGE_PIXELS = None  # our own, lower limit is enforced below, before anything is decoded


def versions() -> dict[str, str]:
    """The libraries that decide the bytes; those of other builds differ by a grey level or two."""
    return {
        "pillow": PIL.__version__,
        "libjpeg": str(features.version("libjpeg_turbo") or features.version("jpg")),
        "zlib": str(features.version("zlib")),
        "numpy": np.__version__,
    }


def pictures(pixels: Pixels, item: Item, recipe: Recipe) -> list[bytes]:
    """The encoded picture of each size. Raises IntegrityError with the reason if that is impossible."""
    image = clean(pixels, item)
    return [
        encoded(resized(image, size, recipe.resizing), encoding)
        for size, encoding in zip(recipe.sizes, recipe.encodings, strict=True)
    ]


def clean(pixels: Pixels, item: Item) -> Image.Image:
    """Upright RGB, cropped and inverted as the item says."""
    image = _opened(pixels) if isinstance(pixels, bytes) else Image.fromarray(pixels)
    if item.crop is not None:
        image = _cropped(image, item.crop)
    image = rgb(image)
    image.info = {}  # comments, profiles and transparency would be written into every size
    return ImageOps.invert(image) if item.invert else image


def _opened(data: bytes) -> Image.Image:
    if not data:
        raise IntegrityError("the file is empty")
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > PIXEL_LIMIT:
            raise IntegrityError(
                f"{image.width} x {image.height} pixels are more than the limit of {PIXEL_LIMIT:,}"
            )
        image.load()
    except UnidentifiedImageError:
        raise IntegrityError(f"not a picture (it starts with {data[:8]!r})") from None
    except DECODE_ERRORS as error:
        raise IntegrityError(f"cannot be decoded: {error}") from error
    if image.getexif().get(0x0112, UPRIGHT) != UPRIGHT:
        image = ImageOps.exif_transpose(image)
    return image


def _cropped(image: Image.Image, crop: tuple[int, int, int, int]) -> Image.Image:
    left, upper, right, lower = crop
    right, lower = min(right, image.width), min(lower, image.height)
    if not (0 <= left < right and 0 <= upper < lower):
        raise IntegrityError(f"the crop {crop} lies outside {image.width} x {image.height} pixels")
    return image.crop((left, upper, right, lower))


def rgb(image: Image.Image) -> Image.Image:
    """Eight bits, three channels, whatever came in; transparent parts lie on white."""
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
    """16-bit and float greys scaled down, not clipped as a plain conversion would."""
    wide = values.astype(np.float64)
    top = np.iinfo(np.uint16).max if values.dtype.kind in "iu" else max(float(wide.max()), 1.0)
    return np.clip(np.rint(wide * (255 / top)), 0, 255).astype(np.uint8)


def resized(image: Image.Image, size: int, how: Resizing) -> Image.Image:
    """A square of `size` pixels."""
    box = None
    if how.shape == "crop":
        side = min(image.size)
        left, upper = (image.width - side) / 2, (image.height - side) / 2
        box = (left, upper, left + side, upper + side)
    return image.resize((size, size), FILTERS[how.filter], box=box)


def encoded(image: Image.Image, encoding: Encoding) -> bytes:
    """The stored bytes, read back once so that no loader meets a bad one."""
    if encoding.format == "raw":
        return _npy_header(image.size) + image.tobytes()
    buffer = io.BytesIO()
    if encoding.format == "png":
        image.save(buffer, "PNG")
    else:
        colour = "4:4:4" if encoding.full_colour else "4:2:0"
        image.save(buffer, "JPEG", quality=encoding.quality, subsampling=colour)
    data = buffer.getvalue()
    _check(data, encoding, image)
    return data


@lru_cache
def _npy_header(size: tuple[int, int]) -> bytes:
    """What numpy writes before the pixels of an RGB picture."""
    width, height = size
    buffer = io.BytesIO()
    np.save(buffer, np.empty((height, width, 3), np.uint8), allow_pickle=False)
    return buffer.getvalue()[: -height * width * 3]


def _check(data: bytes, encoding: Encoding, image: Image.Image) -> None:
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
