"""Image files of any format: `pipeline.build.images.clean_image`."""

from __future__ import annotations

import numpy as np

from pipeline.build.images import SIDE_LIMIT, clean_image
from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import IntegrityError
from pipeline.records import Item
from tests.fuzz.mutations import LONGEST_INPUT
from tests.odd_images import odd_images

LIMIT_MB = 900  # an image of the largest size takes most of this; a worker stays below 1 GB


def seeds() -> list[bytes]:
    return [image.data for image in odd_images() if len(image.data) <= LONGEST_INPUT // 8]


def check(data: bytes) -> None:
    """An image is refused, or it becomes RGB within the limits and the same pixels each time."""
    try:
        image = clean_image(data, Item("", 0))
    except IntegrityError:
        return
    assert image.mode == "RGB"
    assert 1 <= image.width * image.height <= PIXEL_LIMIT
    assert max(image.size) <= SIDE_LIMIT
    if image.width * image.height < 1 << 16:  # memory that is not the image's would differ
        assert np.array_equal(np.asarray(image), np.asarray(clean_image(data, Item("", 0))))
