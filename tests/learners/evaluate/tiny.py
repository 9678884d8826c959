"""Small shard sets with images, for each protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.build.builder import build_shards
from pipeline.records import ClassRecord, Encoding, Item, Pixels, Recipe, Rejected, Split, Survey
from pipeline.sources.base import Source
from pipeline.sources.demo import draw_glyph
from pipeline.sources.orbit.source import OrbitSource
from tests.pipeline.sources.orbit.tree import make_orbit

SIZE, LARGER = 24, 32
RECIPE = Recipe(sizes=(SIZE, LARGER), encodings=(Encoding.parse("raw"),) * 2)
IMAGES = 8  # of each class of `glyphs`
FRAMES = 52  # of each video; the object is absent from the last


@dataclass(frozen=True, kw_only=True)
class Glyphs(Source):
    """Drawn images; `splits` has the splits of the images of each class."""

    root: Path = Path()
    splits: Sequence[Sequence[Split]] = ()

    def survey(self) -> Survey:
        whole = [set(own) for own in self.splits]
        classes = tuple(
            ClassRecord(name=f"glyph {n}", split=next(iter(own)) if len(own) == 1 else "")
            for n, own in enumerate(whole)
        )
        items = [
            Item(f"{n}/{place}", n, split, offset=place, split_lite=split)
            for n, own in enumerate(self.splits)
            for place, split in enumerate(own)
        ]
        return Survey(classes=classes, items=items)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        for item in items:
            yield np.asarray(draw_glyph(item.class_id, item.offset))


def glyphs(root: Path, recipe: Recipe = RECIPE) -> Path:
    """Six classes to train on and eight to test on."""
    splits = [of(train=IMAGES)] * 6 + [of(test=IMAGES)] * 8
    build_shards(Glyphs(name="glyphs", splits=splits), root / "glyphs", recipe)
    return root / "glyphs"


def flowers(root: Path) -> Path:
    """A task of VTAB whose third class has no support image, and five query images."""
    splits = [of(train=4, test=6), of(train=5, test=4), of(test=5), of(train=3, test=3)]
    build_shards(Glyphs(name="flowers102", splits=splits), root / "flowers102", RECIPE)
    return root / "flowers102"


def validated_glyphs(root: Path) -> Path:
    """Four classes to train on, four to validate on, and four to test on."""
    splits = [of(train=IMAGES)] * 4 + [of(validation=IMAGES)] * 4 + [of(test=IMAGES)] * 4
    build_shards(Glyphs(name="glyphs", splits=splits), root / "glyphs", RECIPE)
    return root / "glyphs"


def of(*, train: int = 0, validation: int = 0, test: int = 0) -> list[Split]:
    """The splits of the images of a class."""
    before: list[Split] = ["train"] * train
    between: list[Split] = ["validation"] * validation
    after: list[Split] = ["test"] * test
    return before + between + after


def orbit(root: Path) -> Path:
    """Two test users with two objects each: two clean videos and one in clutter."""
    tree = make_orbit(root / "tree", users={"test": ("P177", "P999")}, frames=FRAMES, size=SIZE)
    build_shards(OrbitSource(root=tree), root / "orbit", RECIPE)
    return root / "orbit"
