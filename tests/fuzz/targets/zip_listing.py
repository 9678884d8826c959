"""Zip listing: `pipeline.sources.archives.zip_members`, and reading and planning what it lists."""

from __future__ import annotations

import zipfile

from tests.fuzz.source_files import look_at_archive, written, zip_bytes


def seeds() -> list[bytes]:
    return [zip_bytes(zipfile.ZIP_STORED), zip_bytes(zipfile.ZIP_DEFLATED)]


def check(data: bytes) -> None:
    look_at_archive(written("a.zip", data))
