"""Datasets in which a list says the class of each picture: FGVC-Aircraft, FGVCx Fungi, VGG Flower."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.errors import IntegrityError
from pipeline.records import Rejected, SourceFile
from pipeline.sources.archives import Tree
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.matlab import read_numbers
from pipeline.sources.meta_dataset.parts import located
from pipeline.sources.meta_dataset.raw import Listing, Picture, RawSource

Crop = tuple[int, int, int, int]


def _lines(tree: Tree, path: str, columns: int) -> Iterator[list[str]]:
    """The words of each line; the last takes what is left of it."""
    text = tree.read(path).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(maxsplit=columns - 1)
        if len(words) != columns:
            raise IntegrityError(
                f"{tree.where}, {path}:{number}: {columns} columns are needed, found {line!r}; "
                "unpack or download it again"
            )
        yield words


@dataclass(frozen=True, kw_only=True)
class Aircraft(RawSource):
    """FGVC-Aircraft by variant; cut to the aircraft's box, which leaves the banner off."""

    name: str = "aircraft"
    parts = DOWNLOADS["aircraft"]

    def listing(self) -> Listing:
        """The lists of both of its own splits, and the boxes."""
        tree = self.opened(self.parts[0])
        boxes = {words[0]: words[1:] for words in _lines(tree, "images_box.txt", 5)}
        pictures: dict[str, list[Picture | Rejected]] = {}
        pairs = [
            (image, variant)
            for own in ("trainval", "test")
            for image, variant in _lines(tree, f"images_variant_{own}.txt", 2)
        ]
        for image, variant in sorted(pairs):
            path = f"images/{image}.jpg"
            entry: Picture | Rejected = Rejected(path, "is listed and is not there")
            if path in tree.members:
                entry = Picture(path, tree.members[path], crop=_box(tree, image, boxes.get(image)))
            pictures.setdefault(variant.strip(), []).append(entry)
        return Listing(
            pictures=pictures, where=tree.where, rejected=tree.rejected, files=tree.files
        )


def _box(tree: Tree, image: str, numbers: list[str] | None) -> Crop:
    if numbers is None or not all(number.isdigit() for number in numbers):
        raise IntegrityError(
            f"{tree.where}: images_box.txt has {numbers or 'nothing'} for picture {image}, where four "
            "numbers are needed; unpack or download it again"
        )
    left, upper, right, lower = map(int, numbers)
    return left, upper, right, lower


@dataclass(frozen=True, kw_only=True)
class VggFlower(RawSource):
    """Oxford's 102 flowers; a class's original number, from 1, starts its name."""

    name: str = "vgg_flower"
    parts = DOWNLOADS["vgg_flower"]

    def listing(self) -> Listing:
        """The n-th label is that of jpg/image_<n>.jpg."""
        pictures_part, labels_part = self.parts
        tree, path = self.opened(pictures_part), located(labels_part, self.root)
        assert path is not None  # `found` holds
        try:
            labels = read_numbers(path.read_bytes(), "labels").tolist()
        except IntegrityError as error:
            raise IntegrityError(f"{path}: {error}: {labels_part}") from error
        name_of = {int(entry.record.name[:3]): entry.record.name for entry in self.classes()}
        pictures: dict[str, list[Picture | Rejected]] = {}
        for number, label in enumerate(labels, start=1):
            file = f"image_{number:05d}.jpg"
            entry: Picture | Rejected = Rejected(file, "has a label and is not there")
            if file in tree.members:
                entry = Picture(file, tree.members[file])
            pictures.setdefault(name_of.get(label, f"label {label}"), []).append(entry)
        unlabelled = sorted(
            set(tree.members) - {f"image_{n:05d}.jpg" for n in range(1, len(labels) + 1)}
        )
        strays = (Rejected(file, "has no label in imagelabels.mat") for file in unlabelled)
        return Listing(
            pictures=pictures,
            where=f"{tree.where} with {path}",
            rejected=(*tree.rejected, *strays),
            files=(*tree.files, SourceFile(name=path.name, bytes=path.stat().st_size)),
        )


@dataclass(frozen=True, kw_only=True)
class Fungi(RawSource):
    """FGVCx Fungi 2018; species' names repeat, so a class's number, from 0, starts its name."""

    name: str = "fungi"
    parts = DOWNLOADS["fungi"]

    def listing(self) -> Listing:
        """Its train.json and val.json together."""
        tree, lists = self.opened(self.parts[0]), self.opened(self.parts[1])
        name_of = {int(entry.record.name[:4]): entry.record.name for entry in self.classes()}
        pictures: dict[str, list[Picture | Rejected]] = {}
        for list_file in ("train.json", "val.json"):
            for file, category in sorted(_annotations(lists, list_file)):
                path = str(PurePosixPath(file)).removeprefix("images/")
                entry: Picture | Rejected = Rejected(path, f"is in {list_file} and not there")
                if path in tree.members:
                    entry = Picture(path, tree.members[path])
                name = name_of.get(category, f"category {category}")
                pictures.setdefault(name, []).append(entry)
        return Listing(
            pictures=pictures,
            where=f"{tree.where} with {lists.where}",
            rejected=tree.rejected,
            files=(*tree.files, *lists.files),
        )


def _annotations(tree: Tree, path: str) -> list[tuple[str, int]]:
    """File and category of each annotated picture."""
    try:
        about = json.loads(tree.read(path))
        files = {image["id"]: str(image["file_name"]) for image in about["images"]}
        return [(files[one["image_id"]], int(one["category_id"])) for one in about["annotations"]]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(
            f"{tree.where}: {path} is not the list it should be ({error!r}); unpack or download it again"
        ) from error
