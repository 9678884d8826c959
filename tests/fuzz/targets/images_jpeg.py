"""JPEG images: `pipeline.build.images.clean_image`, strict and repaired."""

from __future__ import annotations

from pipeline.build.image_files import JPEG_SIGNATURE
from tests.fuzz.targets.images import LIMIT_MB, check
from tests.fuzz.targets.images import seeds as all_seeds

__all__ = ["LIMIT_MB", "check"]


def seeds() -> list[bytes]:
    return [data for data in all_seeds() if data.startswith(JPEG_SIGNATURE)]
