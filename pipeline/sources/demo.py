"""Images drawn by a program: classes that can be learned, without a download.

A class is a glyph of a few strokes; an image shows it shifted, rotated, scaled, coloured and blurred.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pipeline.records import ClassRecord, Item, Pixels, Rejected, Split, Survey
from pipeline.sources.base import Source

CLASSES_PER_SPLIT: Final[tuple[tuple[Split, int], ...]] = (("train", 24), ("validation", 8), ("test", 8))
IMAGES_PER_CLASS: Final = 20  # per class, as in Omniglot
GLYPH_SIZE: Final = 128  # pixels
STROKES: Final = 4  # per glyph
POINTS: Final = 4  # per stroke

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class DemoSource(Source):
    """40 glyph classes with 20 images each, the same on every machine."""

    name: str = "demo"
    root: Path = Path()

    def survey(self) -> Survey:
        """List all items; the images do not exist until they are drawn."""
        classes = tuple(
            ClassRecord(name=f"{split}-glyph-{number:02d}", split=split)
            for split, count in CLASSES_PER_SPLIT
            for number in range(count)
        )
        items = (
            Item(f"{record.name}/{number:02d}", class_id, record.split, offset=number)
            for class_id, record in enumerate(classes)
            for number in range(IMAGES_PER_CLASS)
        )
        return Survey(classes=classes, items=items)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Draw the images."""
        for item in items:
            yield np.asarray(draw_glyph(item.class_id, item.offset))


def draw_glyph(class_id: int, number: int) -> Image.Image:
    """Draw one image of one class; Python guarantees the numbers of `random()` across versions."""
    pose = random.Random(f"picture {class_id} {number}")  # noqa: S311  (not for secrets)
    dark, light = _dark_and_light(pose)
    image = Image.new("RGB", (GLYPH_SIZE, GLYPH_SIZE), light)
    pen = ImageDraw.Draw(image)
    for _ in range(6):  # a background that tells nothing of the class
        x, y, r = (pose.random() * GLYPH_SIZE for _ in range(3))
        shade = tuple(int(c * (0.8 + 0.2 * pose.random())) for c in light)
        pen.ellipse((x - r / 3, y - r / 3, x + r / 3, y + r / 3), fill=shade)
    width = 5 + int(pose.random() * 6)
    for stroke in _posed_strokes(_glyph_strokes(class_id), pose):
        pen.line(stroke, fill=dark, width=width, joint="curve")
    return image.filter(ImageFilter.GaussianBlur(0.3 + pose.random()))


def _glyph_strokes(class_id: int) -> list[list[Point]]:
    shape = random.Random(f"glyph {class_id}")  # noqa: S311
    corners = [(0.5 - shape.random(), 0.5 - shape.random()) for _ in range(STROKES + POINTS)]
    return [[corners[int(shape.random() * len(corners))] for _ in range(POINTS)] for _ in range(STROKES)]


def _posed_strokes(glyph: list[list[Point]], pose: random.Random) -> Iterator[list[Point]]:
    angle = (pose.random() - 0.5) * math.pi / 3
    scale = GLYPH_SIZE * (0.55 + 0.3 * pose.random())
    shift_x, shift_y = (GLYPH_SIZE * (0.5 + 0.2 * (pose.random() - 0.5)) for _ in range(2))
    cosine, sine = scale * math.cos(angle), scale * math.sin(angle)
    for stroke in glyph:
        yield [(shift_x + cosine * x - sine * y, shift_y + sine * x + cosine * y) for x, y in stroke]


def _dark_and_light(pose: random.Random) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    def colour(low: float, high: float) -> tuple[int, int, int]:
        red, green, blue = (int(255 * (low + (high - low) * pose.random())) for _ in range(3))
        return red, green, blue

    dark, light = colour(0.0, 0.45), colour(0.6, 1.0)
    return (dark, light) if pose.random() < 0.5 else (light, dark)  # noqa: PLR2004
