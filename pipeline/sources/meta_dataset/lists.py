"""Datasets in which a list names the class of each image: FGVC-Aircraft, FGVCx Fungi, VGG Flower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pipeline.errors import IntegrityError
from pipeline.records import Rejected
from pipeline.settings import parse_json
from pipeline.sources.archives import MemberTree
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.matlab import read_numbers
from pipeline.sources.meta_dataset.parts import locate_part
from pipeline.sources.meta_dataset.raw import ListedImage, RawListing, RawSource, list_member
from pipeline.sources.spans import read_list

Crop = tuple[int, int, int, int]
ImagesByName = dict[str, list[ListedImage | Rejected]]


def _read_columns(tree: MemberTree, path: str, columns: int) -> Iterator[list[str]]:
    """Yield the words of each line; the last column takes the rest of the line."""
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
class AircraftSource(RawSource):
    """FGVC-Aircraft by variant; cropped to the aircraft's box, which removes the copyright banner."""

    name: str = "aircraft"
    parts = DOWNLOADS["aircraft"]

    def list_images(self) -> RawListing:
        """Read the lists of both of its own splits, and the boxes."""
        tree = self.open_part(self.parts[0])
        boxes = {words[0]: words[1:] for words in _read_columns(tree, "images_box.txt", 5)}
        images: ImagesByName = {}
        pairs = [
            (image, variant)
            for own in ("trainval", "test")
            for image, variant in _read_columns(tree, f"images_variant_{own}.txt", 2)
        ]
        for image, variant in sorted(pairs):
            entry = list_member(tree, f"images/{image}.jpg", "is listed and is not there")
            if isinstance(entry, ListedImage):
                entry = entry._replace(crop=_aircraft_box(tree, image, boxes.get(image)))
            images.setdefault(variant.strip(), []).append(entry)
        return RawListing.of_tree(tree, images)


def _aircraft_box(tree: MemberTree, image: str, numbers: list[str] | None) -> Crop:
    if numbers is None or not all(number.isdigit() for number in numbers):
        raise IntegrityError(
            f"{tree.where}: images_box.txt has {numbers or 'nothing'} for picture {image}, where four "
            "numbers are needed; unpack or download it again"
        )
    left, upper, right, lower = map(int, numbers)
    return left, upper, right, lower


@dataclass(frozen=True, kw_only=True)
class VggFlowerSource(RawSource):
    """Oxford's 102 flowers; the name of a class starts with its original number, from 1."""

    name: str = "vgg_flower"
    parts = DOWNLOADS["vgg_flower"]

    def list_images(self) -> RawListing:
        """Read the labels; the n-th is that of jpg/image_<n>.jpg."""
        images_part, labels_part = self.parts
        tree, path = self.open_part(images_part), locate_part(labels_part, self.root)
        assert path is not None  # `is_available` holds
        try:
            labels = read_numbers(read_list(path), "labels").tolist()
        except IntegrityError as error:
            raise IntegrityError(f"{path}: {error}: {labels_part}") from error
        name_of = {int(entry.record.name[:3]): entry.record.name for entry in self.classes()}
        label_of = {f"image_{number:05d}.jpg": label for number, label in enumerate(labels, 1)}
        images: ImagesByName = {}
        for file, label in label_of.items():
            entry = list_member(tree, file, "has a label and is not there")
            images.setdefault(name_of.get(label, f"label {label}"), []).append(entry)
        unlabelled = sorted(tree.members.keys() - label_of)
        strays = (Rejected(file, "has no label in imagelabels.mat") for file in unlabelled)
        return RawListing.of_tree(tree, images, strays, beside=path)


@dataclass(frozen=True, kw_only=True)
class FungiSource(RawSource):
    """FGVCx Fungi 2018; names of species repeat, so that of a class starts with its number, from 0."""

    name: str = "fungi"
    parts = DOWNLOADS["fungi"]

    def list_images(self) -> RawListing:
        """Read its train.json and val.json."""
        tree, lists = self.open_part(self.parts[0]), self.open_part(self.parts[1])
        name_of = {int(entry.record.name[:4]): entry.record.name for entry in self.classes()}
        images: ImagesByName = {}
        for list_file in ("train.json", "val.json"):
            for file, category in sorted(_fungi_annotations(lists, list_file)):
                path = str(PurePosixPath(file)).removeprefix("images/")
                name = name_of.get(category, f"category {category}")
                entry = list_member(tree, path, f"is in {list_file} and not there")
                images.setdefault(name, []).append(entry)
        listing, where = RawListing.of_tree(tree, images), f"{tree.where} with {lists.where}"
        return replace(listing, where=where, files=(*tree.files, *lists.files))


def _fungi_annotations(tree: MemberTree, path: str) -> list[tuple[str, int]]:
    """File and category of each annotated image."""
    try:
        values = parse_json(tree.read(path), path)
        files = {image["id"]: str(image["file_name"]) for image in values["images"]}
        return [(files[one["image_id"]], int(one["category_id"])) for one in values["annotations"]]
    except (IntegrityError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise IntegrityError(
            f"{tree.where}: {path} is not the list it should be ({error!r}); unpack or download it again"
        ) from error
