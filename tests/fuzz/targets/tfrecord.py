"""TFRecord framing: `pipeline.sources.tfrecords.framing.read_records` and `check_record`."""

from __future__ import annotations

import random
import struct

from pipeline.errors import PipelineError
from pipeline.sources.tfrecords.framing import (
    RECORD_FOOTER,
    RECORD_HEADER,
    check_record,
    masked_crc,
    read_records,
)
from tests.fuzz.mutations import WIDE_NUMBERS, mutate_bytes
from tests.fuzz.source_files import written


def seeds() -> list[bytes]:
    return [_framed(b"first") + _framed(b"") + _framed(b"x" * 300), b""]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Changed bytes, or a record with a right checksum of a wrong length."""
    if generator.random() < 0.6:
        return mutate_bytes(data, generator)
    length = generator.choice((*WIDE_NUMBERS, len(data), max(0, len(data) - 16)))
    header = struct.pack("<Q", length)
    return header + struct.pack("<L", masked_crc(header)) + data[: generator.randrange(len(data) + 1)]


def check(data: bytes) -> None:
    """Accepted records lie one after the other in the file, to its end."""
    path = written("a.tfrecord", data)
    end = 0
    try:
        for start, length in read_records(path):
            assert start == end + RECORD_HEADER.size
            end = start + length + RECORD_FOOTER.size
            assert end <= len(data)
    except PipelineError:
        return
    assert end == len(data)
    try:
        for start, length in read_records(path, verify=True):
            check_record(data[start : start + length + RECORD_FOOTER.size], "record")
    except PipelineError:
        return


def _framed(data: bytes) -> bytes:
    header = struct.pack("<Q", len(data))
    return header + struct.pack("<L", masked_crc(header)) + data + struct.pack("<L", masked_crc(data))
