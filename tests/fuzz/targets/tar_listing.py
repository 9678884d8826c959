"""Tar listing: `pipeline.sources.tar_listing.tar_members`, and reading and planning what it lists."""

from __future__ import annotations

import random
import tarfile

from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.source_files import look_at_archive, sparse_tar_bytes, tar_bytes, with_tar_checksums, written


def seeds() -> list[bytes]:
    layouts = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    return [*map(tar_bytes, layouts), sparse_tar_bytes()]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Changed bytes, most of them under right checksums."""
    changed = mutate_bytes(data, generator)
    return changed if generator.random() < 0.2 else with_tar_checksums(changed)


def check(data: bytes) -> None:
    look_at_archive(written("a.tar", data))
