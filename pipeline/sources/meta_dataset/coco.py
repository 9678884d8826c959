"""MS COCO as Meta-Dataset uses it: every annotated object of train2017 is a picture, cut to its box."""

from __future__ import annotations

import zipfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, cast

from pipeline.errors import IntegrityError
from pipeline.records import Rejected, SourceFile
from pipeline.sources.archives import Tree
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.json_stream import list_entries
from pipeline.sources.meta_dataset.parts import located
from pipeline.sources.meta_dataset.raw import Listing, Picture, RawSource

INSTANCES: Final = "instances_train2017.json"
WIDER: Final = 1.2  # boxes are drawn tight; Meta-Dataset keeps some of what surrounds the object
COLUMNS: Final = 6  # of an annotation: picture, own id, left, upper, width, height


@dataclass(slots=True)
class _Instances:
    """The annotations as numbers: 48 bytes for each, where Python's objects would take a kilobyte."""

    categories: dict[int, str] = field(default_factory=dict)
    images: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """File, width, height."""
    boxes: dict[int, array[float]] = field(default_factory=dict)
    """By category, six numbers for each annotation, in the order of the file."""


@dataclass(frozen=True, kw_only=True)
class MsCoco(RawSource):
    """80 categories, none to train on. Crowds count, as in the original: 860,001 pictures."""

    name: str = "mscoco"
    parts = DOWNLOADS["mscoco"]

    def listing(self) -> Listing:
        """The annotations by category; the 450 MB list is read as a stream (under 100 MB of memory)."""
        tree, path = self.opened(self.parts[0]), located(self.parts[1], self.root)
        assert path is not None  # `found` holds
        file = path / INSTANCES if path.is_dir() else path
        instances = _read(file)
        pictures = {
            name: _pictures(tree, instances, category)
            for category, name in instances.categories.items()
            if category in instances.boxes
        }
        about = SourceFile(name=file.name, bytes=file.stat().st_size)
        return Listing(
            pictures=pictures,
            where=f"{tree.where} with {file}",
            rejected=tree.rejected,
            files=(*tree.files, about),
        )


def _pictures(tree: Tree, found: _Instances, category: int) -> Iterator[Picture | Rejected]:
    numbers = found.boxes[category]
    for start in range(0, len(numbers), COLUMNS):
        image, annotation, *box = numbers[start : start + COLUMNS]
        file, width, height = found.images.get(int(image), (f"picture {int(image)}", 0, 0))
        name = f"{file}:{int(annotation)}"
        crop = widened(box, width, height)
        if file not in tree.members:
            yield Rejected(name, f"is annotated in {INSTANCES} and {file} is not there")
        elif crop is None:
            yield Rejected(name, f"its box {box} has no area in {width} x {height} pixels")
        else:
            yield Picture(name, tree.members[file], crop=crop)


def widened(box: list[float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """The crop for a box (left, upper, width, height), 1.2 times as large, within the picture.

    >>> widened([10, 20, 40, 10], width=100, height=80)
    (6, 18, 55, 31)
    """
    left, right = _widened_side(box[0], box[2], width)
    upper, lower = _widened_side(box[1], box[3], height)
    return (left, upper, right, lower) if left < right and upper < lower else None


def _widened_side(start: float, length: float, limit: int) -> tuple[int, int]:
    start, length = start - 0.5 * length * (WIDER - 1.0), length * WIDER
    # Python's rounding, half to even, is part of the original's definition.
    return max(round(start - 0.5), 0), min(round(start + length - 0.5) + 1, limit)


def _read(file: Path) -> _Instances:
    found = _Instances()
    try:
        with _stream(file) as stream:
            for key, entry in list_entries(stream):
                _keep(found, key, cast("Mapping[str, Any]", entry))
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{file}: an entry of {INSTANCES} is not as it should be ({error!r}); download it again"
        ) from error
    except (IntegrityError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise IntegrityError(f"{file}: {INSTANCES} {error}; unpack or download it again") from error
    return found


def _keep(found: _Instances, key: str, entry: Mapping[str, Any]) -> None:
    if key == "images":
        found.images[entry["id"]] = (entry["file_name"], entry["width"], entry["height"])
    elif key == "annotations":
        row = (entry["image_id"], entry["id"], *entry["bbox"])
        if len(row) != COLUMNS:
            raise ValueError(f"annotation {entry['id']} has no box")
        found.boxes.setdefault(entry["category_id"], array("d")).extend(row)
    elif key == "categories":
        found.categories[entry["id"]] = entry["name"]


@contextmanager
def _stream(file: Path) -> Iterator[IO[bytes]]:
    """The list, out of the zip if it is in one: too large there to be read as a member."""
    if not zipfile.is_zipfile(file):
        with file.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(file) as archive:
        names = [name for name in archive.namelist() if Path(name).name == INSTANCES]
        if not names:
            raise IntegrityError(f"is not in it; it holds {len(archive.namelist())} other files")
        with archive.open(names[0]) as stream:
            yield stream
