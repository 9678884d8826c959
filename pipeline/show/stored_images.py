"""Stored images, read from the shards and checked, and small copies of them for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.build.images import DECODE_ERRORS
from pipeline.errors import IntegrityError, UsageError, first_line
from pipeline.index import Dataset
from pipeline.store.local import SampleStore, locate_samples

NPY_MAGIC: Final = b"\x93NUMPY"
TILE_JPEG_QUALITY: Final = 84  # in the page; no artefacts are visible in a thumbnail
DRAWING_COLOURS: Final = 64  # at most, in a drawing; these become PNGs, which keep edges sharp


def read_images(
    store: SampleStore, dataset: Dataset, size: int, rows: Sequence[int]
) -> Iterator[Image.Image]:
    """Read the images of some rows of the index, in their order.

    Of a remote dataset only these are downloaded, many at once. Raises IntegrityError for a damaged one.
    """
    locations = locate_samples(dataset, size, np.array(rows, np.int64))
    store.prefetch(locations)
    for at in range(len(locations)):
        data = bytearray(locations.lengths[at])
        store.read(locations, at, [memoryview(data)])
        try:
            image = _decode(bytes(data), size)
        except DECODE_ERRORS as error:
            raise IntegrityError(
                f"{locations.describe(at)} cannot be decoded ({error}); python -m pipeline.verify "
                f"{dataset.root} says what else is damaged and mends it"
            ) from error
        yield image


def _decode(data: bytes, size: int) -> Image.Image:
    """Decode a JPEG, a PNG or a raw array of this size. Raises one of DECODE_ERRORS."""
    if data.startswith(NPY_MAGIC):
        return Image.fromarray(_raw_pixels(data, size))
    image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    if image.size != (size, size):
        raise ValueError(f"it is {image.width} x {image.height} pixels, not {size} x {size}")
    return image.convert("RGB")


def _raw_pixels(data: bytes, size: int) -> NDArray[np.uint8]:
    """The pixels of a .npy file, which must be an RGB image of this size: nothing is allocated for another."""
    stream = io.BytesIO(data)
    try:
        np.lib.format.read_magic(stream)
        described = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # numpy parses Python, which fails in many kinds
        raise ValueError(f"its .npy header cannot be read: {first_line(error)}") from error
    if described != ((size, size, 3), False, np.dtype(np.uint8)):
        raise ValueError(f"its .npy header says {described}")
    return np.frombuffer(data, np.uint8, offset=stream.tell()).reshape(size, size, 3)


def choose_size(dataset: Dataset, size: int) -> int:
    """The size to show: the one asked for, the largest for 0."""
    sizes = tuple(dataset.manifest.shards)
    if size and size not in sizes:
        raise UsageError(
            f"{dataset.manifest.name} is stored at {' and '.join(map(str, sizes))} px, not at {size}"
        )
    return size or max(sizes)


def shrink_image(image: Image.Image, side: int) -> Image.Image:
    """Shrink an image to `side` pixels; a smaller one stays as it is."""
    if image.width <= side:
        return image
    return image.resize((side, side), Image.Resampling.LANCZOS)


def data_uri(image: Image.Image) -> str:
    """The image as the `src` of an `img` element, so that the page is complete in itself."""
    buffer, media_type = io.BytesIO(), "jpeg"
    if image.getcolors(DRAWING_COLOURS) is not None:
        media_type = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=TILE_JPEG_QUALITY, optimize=True)
    return f"data:image/{media_type};base64,{base64.b64encode(buffer.getvalue()).decode()}"
