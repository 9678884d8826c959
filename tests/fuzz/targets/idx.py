"""IDX: the pictures and labels of `pipeline.sources.meta_dataset.arrays.MnistSource`."""

from __future__ import annotations

import struct
from contextlib import suppress

from pipeline.errors import PipelineError
from pipeline.sources.meta_dataset.arrays import GREY_PIXELS, _idx_images, _idx_labels
from tests.fuzz.source_files import written


def seeds() -> list[bytes]:
    images = struct.pack(">2x2B3I", 8, 3, 2, 28, 28) + bytes(2 * GREY_PIXELS)
    labels = struct.pack(">2x2BI", 8, 1, 5) + bytes(range(5))
    return [images, labels]


def check(data: bytes) -> None:
    path = written("a.idx", data)
    with suppress(PipelineError):
        start, count = _idx_images(path, path)
        assert start + count * GREY_PIXELS == len(data)
    with suppress(PipelineError):
        assert data.endswith(_idx_labels(path, path))
