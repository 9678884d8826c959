"""Damaged copies of a small shard set, and how many readers notice: for the rows about shards."""

from __future__ import annotations

import random
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.build.builder import Run, build_shards
from pipeline.errors import PipelineError
from pipeline.index import Dataset
from pipeline.records import Encoding, Recipe
from pipeline.shardset import ShardSet
from pipeline.sources.folder import FolderSource
from pipeline.store.local import LocalStore, SampleLocations, locate_samples
from tests.images import fill_class_folders

ENCODINGS: Final = {24: "raw", 84: "jpeg:80"}  # by size


def public_files(root: Path) -> list[Path]:
    """All files of a set but the build's records."""
    return sorted(p for p in root.rglob("*") if p.is_file() and ".build" not in p.parts)


def files_by_kind(root: Path) -> dict[str, list[Path]]:
    by_kind: dict[str, list[Path]] = {}
    for path in public_files(root):
        by_kind.setdefault(path.suffix if path.suffix != ".json" else path.name, []).append(path)
    return by_kind


def flipped(path: Path, place: int, bit: int) -> bytes:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    return bytes(data)


def flip(path: Path, place: int, bit: int = 0) -> None:
    path.write_bytes(flipped(path, place, bit))


def damages(root: Path, seed: int) -> Iterator[tuple[Path, random.Random]]:
    """An endless stream of files to damage, each kind of file as often as the others."""
    choice = random.Random(seed)
    while True:
        for files in files_by_kind(root).values():
            yield choice.choice(files), choice


def build_zoo(folder: Path) -> Path:
    """A set of 40 pictures at two sizes, in three shards, with one picture left out."""
    pictures = fill_class_folders(folder / "zoo", {"cat": 20, "dog": 14, "owl": 6})
    (pictures / "cat" / "half.jpg").write_bytes(b"no picture")
    with tarfile.open(pictures.with_suffix(".tar"), "w") as archive:
        for path in sorted(pictures.rglob("*")):
            archive.add(path, path.relative_to(pictures).as_posix(), recursive=False)
    encodings = tuple(map(Encoding.parse, ENCODINGS.values()))
    recipe = Recipe(sizes=tuple(ENCODINGS), encodings=encodings, shard_samples=16)
    source = FolderSource(name="zoo", root=pictures.with_suffix(".tar"))
    build_shards(source, folder / "whole", recipe, Run(workers=1))
    return folder / "whole"


@dataclass(frozen=True, slots=True)
class DamagedSet:
    """A shard set to damage, and the bytes of its images before."""

    root: Path
    images: dict[int, list[bytes]]
    """By size; in the order of the index."""

    @classmethod
    def build(cls, folder: Path) -> DamagedSet:
        root = Path(shutil.copytree(build_zoo(folder), folder / "damaged"))
        dataset = Dataset.open(root)
        with closing(LocalStore()) as store:
            images = {size: [image for image, _ in _read_all(store, dataset, size)] for size in ENCODINGS}
        assert all(image for of_size in images.values() for image in of_size)
        return cls(root, images)

    def opening_problem(self) -> str:
        """What a reader is told before it reads an image; "" if the set opens."""
        try:
            shards = ShardSet.open(self.root)
            for size in ENCODINGS:
                shards.check_tars(size)
        except PipelineError as error:
            return str(error)
        return ""

    def reading_problem(self, tar: Path, place: int) -> tuple[str, bool]:
        """What is wrong with reading a tar with a changed byte; "" if all is well. Whether it is in an image.

        Well is: each image is what it was, and the one that holds the byte is an error.
        """
        size, dataset = int(tar.parent.name), Dataset.open(self.root)
        touched = False
        with closing(LocalStore()) as store:
            for row, (image, locations) in enumerate(_read_all(store, dataset, size)):
                begin = locations.offsets[0]
                inside = locations.file(0) == tar and begin <= place < begin + locations.lengths[0]
                touched = touched or inside
                if inside == bool(image) or (image and image != self.images[size][row]):
                    return f"row {row} of {size} px was {'read' if image else 'refused'}", touched
        return "", touched


def _read_all(store: LocalStore, dataset: Dataset, size: int) -> Iterator[tuple[bytes, SampleLocations]]:
    """The bytes of each image, b"" for one that is refused, and where it lies."""
    for row in range(len(dataset.index)):
        locations = locate_samples(dataset, size, np.array([row]))
        data = bytearray(locations.lengths[0])
        try:
            store.read(locations, 0, [memoryview(data)])
        except PipelineError:
            data = bytearray()
        yield bytes(data), locations
