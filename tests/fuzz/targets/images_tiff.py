"""TIFF images: `pipeline.build.tiff_files.rewrite_tiff` and what Pillow and libtiff make of the result."""

from __future__ import annotations

from pipeline.build.tiff_files import TIFF_LAYOUTS
from tests.fuzz.targets.images import LIMIT_MB, check
from tests.fuzz.targets.images import seeds as all_seeds

__all__ = ["LIMIT_MB", "check"]


def seeds() -> list[bytes]:
    return [data for data in all_seeds() if data[:4] in TIFF_LAYOUTS]
