"""Single pictures out of the tars, by their place in the index, and small copies of them."""

from __future__ import annotations

import base64
import io
import zlib
from typing import Final

import numpy as np
from PIL import Image

from pipeline.errors import IntegrityError, UsageError
from pipeline.index import Dataset
from pipeline.layout import key_text

QUALITY: Final = 84  # of the JPEGs in the page; a thumbnail hides nothing at that
COLOURS: Final = 64  # up to so many, a picture is a drawing and PNG keeps its edges
DECODE_ERRORS: Final = (OSError, ValueError, SyntaxError, EOFError)


def stored(dataset: Dataset, size: int, row: int) -> Image.Image:
    """The picture of one row, as it lies in the tar. Raises IntegrityError if that is damaged."""
    index = dataset.index
    tar = dataset.tar(size, int(index["shard"][row]))
    length = int(index[f"length_{size}"][row])
    try:
        with tar.open("rb") as handle:
            handle.seek(int(index[f"offset_{size}"][row]))
            data = handle.read(length)
        if zlib.crc32(data) != int(index[f"crc32_{size}"][row]):
            raise ValueError("its crc32 is not the index's")
        return decoded(data)
    except DECODE_ERRORS as error:
        raise IntegrityError(
            f"{tar}: the picture with key {key_text(int(index['key'][row]))} cannot be read ({error}); "
            f"python -m pipeline.verify {dataset.root} says what else is damaged and mends it"
        ) from error


def decoded(data: bytes) -> Image.Image:
    """A JPEG, a PNG or a raw array. Raises one of DECODE_ERRORS."""
    if data.startswith(b"\x93NUMPY"):
        return Image.fromarray(np.load(io.BytesIO(data), allow_pickle=False))
    return Image.open(io.BytesIO(data), formats=("JPEG", "PNG")).convert("RGB")


def check_size(dataset: Dataset, size: int) -> int:
    """The size to show: the one asked for, or the largest for 0."""
    sizes = tuple(dataset.manifest.shards)
    if size and size not in sizes:
        raise UsageError(
            f"{dataset.manifest.name} is stored at {' and '.join(map(str, sizes))} px, not at {size}"
        )
    return size or max(sizes)


def reduced(image: Image.Image, side: int) -> Image.Image:
    """At most `side` pixels; smaller ones stay as they are."""
    if image.width <= side:
        return image
    return image.resize((side, side), Image.Resampling.LANCZOS)


def data_uri(image: Image.Image) -> str:
    """For an `img` element of a page that needs nothing else."""
    buffer, kind = io.BytesIO(), "jpeg"
    if image.getcolors(COLOURS) is not None:
        kind = "png"
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
