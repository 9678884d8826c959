"""MATLAB 5: `pipeline.sources.meta_dataset.matlab.read_numbers`, plain and compressed."""

from __future__ import annotations

import random
import struct
import zlib
from contextlib import suppress

import numpy as np

from pipeline.errors import PipelineError
from pipeline.sources.meta_dataset.matlab import read_numbers
from tests.fuzz.mutations import mutate_bytes
from tests.pipeline.sources.meta_dataset.layouts import matlab

HEADER = 128  # bytes before the first element


def seeds() -> list[bytes]:
    return [matlab([1, 2, 200], compressed=False), matlab([1, 2, 200]), matlab([3], name=b"other")]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Changed bytes, or changed elements compressed as a whole."""
    if generator.random() < 0.5:
        return mutate_bytes(data, generator)
    plain = matlab([1, 2, 200], compressed=False)
    packed = zlib.compress(mutate_bytes(plain[HEADER:], generator))
    return plain[:HEADER] + struct.pack("<II", 15, len(packed)) + packed


def check(data: bytes) -> None:
    with suppress(PipelineError):
        assert read_numbers(data, "labels").dtype == np.int64
