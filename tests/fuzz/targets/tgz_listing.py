"""Compressed tars: `pipeline.sources.inflation`, gzip, bzip2 and xz, and the tar within."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import tarfile
from collections.abc import Callable
from typing import Final

from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.source_files import look_at_archive, tar_bytes, with_tar_checksums, written

PACKERS: Final[tuple[Callable[[bytes], bytes], ...]] = (
    lambda data: gzip.compress(data, mtime=0),
    bz2.compress,
    lzma.compress,
)


def seeds() -> list[bytes]:
    return [pack(tar_bytes(tarfile.USTAR_FORMAT)) for pack in PACKERS]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Changed compressed bytes, or a changed tar compressed as a whole."""
    if generator.random() < 0.5:
        return mutate_bytes(data, generator)
    changed = with_tar_checksums(mutate_bytes(tar_bytes(tarfile.USTAR_FORMAT), generator))
    return generator.choice(PACKERS)(changed)


def check(data: bytes) -> None:
    look_at_archive(written("a.tgz", data))
