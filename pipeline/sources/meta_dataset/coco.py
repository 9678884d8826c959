"""MS COCO as Meta-Dataset uses it: each annotated object of train2017 is an image, cropped to its box."""

from __future__ import annotations

import zipfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import IntegrityError
from pipeline.records import Rejected
from pipeline.sources.archives import MemberTree
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.json_stream import list_entries
from pipeline.sources.meta_dataset.matlab import MOST_EXACT
from pipeline.sources.meta_dataset.parts import locate_part
from pipeline.sources.meta_dataset.raw import ListedImage, RawListing, RawSource

INSTANCES_FILE: Final = "instances_train2017.json"
INSTANCES_LIMIT: Final = 1 << 32  # bytes; nine times the official list
BOX_SCALE: Final = 1.2  # boxes are tight; Meta-Dataset keeps some of the surroundings
ANNOTATION_COLUMNS: Final = 6  # of an annotation: image, its own id, left, upper, width, height


@dataclass(slots=True)
class _CocoInstances:
    """The annotations as numbers: 48 bytes each, where Python objects would take a kilobyte."""

    categories: dict[int, str] = field(default_factory=dict)
    images: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """File, width, height."""
    boxes: dict[int, array[float]] = field(default_factory=dict)
    """By category, six numbers for each annotation, in the order of the file."""


@dataclass(frozen=True, kw_only=True)
class MsCocoSource(RawSource):
    """80 categories, none to train on. Crowds count, as in the original: 860,001 images."""

    name: str = "mscoco"
    parts = DOWNLOADS["mscoco"]

    def list_images(self) -> RawListing:
        """Read the 450 MB of annotations as a stream (under 100 MB of memory), by category."""
        tree, path = self.open_part(self.parts[0]), locate_part(self.parts[1], self.root)
        assert path is not None  # `is_available` holds
        file = path / INSTANCES_FILE if path.is_dir() else path
        instances = _read_instances(file)
        images = {
            name: _annotated_objects(tree, instances, category)
            for category, name in instances.categories.items()
            if category in instances.boxes
        }
        return RawListing.of_tree(tree, images, beside=file)


def _annotated_objects(
    tree: MemberTree, instances: _CocoInstances, category: int
) -> Iterator[ListedImage | Rejected]:
    numbers = instances.boxes[category]
    for start in range(0, len(numbers), ANNOTATION_COLUMNS):
        image, annotation, *box = numbers[start : start + ANNOTATION_COLUMNS]
        file, width, height = instances.images.get(int(image), (f"picture {int(image)}", 0, 0))
        name = f"{file}:{int(annotation)}"
        crop = widen_box(box, width, height)
        if file not in tree.members:
            yield Rejected(name, f"is annotated in {INSTANCES_FILE} and {file} is not there")
        elif crop is None:
            yield Rejected(name, f"its box {box} has no area in {width} x {height} pixels")
        else:
            yield ListedImage(name, tree.members[file], crop=crop)


def widen_box(box: list[float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """The crop for a box (left, upper, width, height), 1.2 times as large, within the image.

    >>> widen_box([10, 20, 40, 10], width=100, height=80)
    (6, 18, 55, 31)
    """
    left, right = _widened_side(box[0], box[2], width)
    upper, lower = _widened_side(box[1], box[3], height)
    return (left, upper, right, lower) if left < right and upper < lower else None


def _widened_side(start: float, length: float, limit: int) -> tuple[int, int]:
    start, length = start - 0.5 * length * (BOX_SCALE - 1.0), length * BOX_SCALE
    # Python's rounding, half to even, is part of the original's definition.
    return max(round(start - 0.5), 0), min(round(start + length - 0.5) + 1, limit)


def _read_instances(file: Path) -> _CocoInstances:
    instances = _CocoInstances()
    try:
        with _open_instances(file) as stream:
            for key, entry in list_entries(stream):
                _add_entry(instances, key, cast("Mapping[str, Any]", entry))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise IntegrityError(
            f"{file}: an entry of {INSTANCES_FILE} is not as it should be ({error!r}); download it again"
        ) from error
    except (IntegrityError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise IntegrityError(f"{file}: {INSTANCES_FILE} {error}; unpack or download it again") from error
    return instances


def _add_entry(instances: _CocoInstances, key: str, entry: Mapping[str, Any]) -> None:
    if key == "images":
        sides = (int(entry["width"]), int(entry["height"]))
        if not 0 < min(sides) <= max(sides) <= PIXEL_LIMIT:
            raise ValueError(f"image {entry['id']} of {sides} pixels")
        instances.images[int(entry["id"])] = (str(entry["file_name"]), *sides)
    elif key == "annotations":
        row = (entry["image_id"], entry["id"], *entry["bbox"])
        if len(row) != ANNOTATION_COLUMNS or not all(abs(value) < MOST_EXACT for value in row):
            raise ValueError(f"annotation {entry['id']} has no box")
        instances.boxes.setdefault(int(entry["category_id"]), array("d")).extend(row)
    elif key == "categories":
        instances.categories[int(entry["id"])] = str(entry["name"])


@contextmanager
def _open_instances(file: Path) -> Iterator[IO[bytes]]:
    """Open the list as a stream; in a zip too, where it is too large to be read as a member."""
    if not file.is_file():
        raise IntegrityError("is not a file")
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if Path(name).name == INSTANCES_FILE]
        if not names:
            raise IntegrityError(f"is not in it; it holds {len(archive.namelist())} other files")
        if (size := archive.getinfo(names[0]).file_size) > INSTANCES_LIMIT:
            raise IntegrityError(f"would inflate to {size:,} bytes (limit {INSTANCES_LIMIT:,})")
        with archive.open(names[0]) as stream:
            yield stream
