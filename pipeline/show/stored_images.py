"""Stored images, read from the shards and checked, and small copies of them for a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from PIL import Image

from pipeline.build.images import DECODE_ERRORS
from pipeline.errors import IntegrityError, UsageError
from pipeline.index import Dataset
from pipeline.store.local import SampleStore, locate_samples

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
            image = _decode(bytes(data))
        except DECODE_ERRORS as error:
            raise IntegrityError(
                f"{locations.describe(at)} cannot be decoded ({error}); python -m pipeline.verify "
                f"{dataset.root} says what else is damaged and mends it"
            ) from error
        yield image


def _decode(data: bytes) -> Image.Image:
    """Decode a JPEG, a PNG or a raw array. Raises one of DECODE_ERRORS."""
    if data.startswith(b"\x93NUMPY"):
        return Image.fromarray(np.load(io.BytesIO(data), allow_pickle=False))
    return Image.open(io.BytesIO(data), formats=("JPEG", "PNG")).convert("RGB")


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
