"""The data of the loader's benchmarks: 10,000 images as our shards, then the same bytes in each peer's format.

    REAL_DATA=folder python -m benchmarks.loader_data           make all that is missing
    REAL_DATA=folder python -m benchmarks.loader_data ffcv 224  one peer's copy at one size

The images are cut out of real photographs, mirrored, brightened and given a sensor's grain.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.common import ROOT, is_installed
from benchmarks.contenders import stand_in_for_torchvision
from benchmarks.workloads import PHOTOS, cache_folder
from pipeline.build.builder import Run, build_shards
from pipeline.constants import DEFAULT_SIZES
from pipeline.layout import DatasetLayout
from pipeline.records import ClassRecord, Encoding, Item, Pixels, Recipe, Rejected, Survey
from pipeline.shardset import ShardSet
from pipeline.sources.base import Source
from pipeline.store.local import locate_samples

PHOTOGRAPHS: Final = 100
IMAGES_PER_CLASS: Final = 100
DRAWN_SIDE: Final = 256  # pixels; a little more than the largest size, so that it is no enlargement
PHOTO_GRAIN: Final = 1.5  # grey levels
SHARD_ENCODINGS: Final = {"jpeg": "jpeg:95", "raw": "raw"}
"""The two shard sets and how they store their images, at both sizes."""


@dataclass(frozen=True, kw_only=True)
class PhotographSource(Source):
    """`root` is the tar of photographs; a class is many views of one of them."""

    def survey(self) -> Survey:
        """Images that do not exist until they are drawn."""
        names = (f"photo-{number:03d}" for number in range(PHOTOGRAPHS))
        return drawn_survey(names, IMAGES_PER_CLASS, digits=3)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Draw the images of these items."""
        for item in items:
            yield draw_view(_photo(self.root, item.class_id), item.class_id * IMAGES_PER_CLASS + item.offset)


def drawn_survey(names: Iterable[str], images: int, *, digits: int) -> Survey:
    """Classes of these names, each with so many items whose offset is their number."""
    classes = tuple(ClassRecord(name=name) for name in names)
    items = (
        Item(f"{record.name}/{number:0{digits}d}", class_id, offset=number)
        for class_id, record in enumerate(classes)
        for number in range(images)
    )
    return Survey(classes=classes, items=items)


@lru_cache(maxsize=4)
def _photo(archive: Path, number: int) -> Image.Image:
    with tarfile.open(archive) as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda member: member.name)
        file = tar.extractfile(members[number])
        assert file is not None
        return Image.open(io.BytesIO(file.read())).convert("RGB")


def draw_view(photo: Image.Image, number: int) -> NDArray[np.uint8]:
    """One of many views of a photograph: another part of it, light and grain."""
    rng = Random(number)
    side = min(photo.size) * (0.5 + 0.5 * rng.random())
    left, upper = (rng.random() * (length - side) for length in photo.size)
    box = (left, upper, left + side, upper + side)
    part = photo.resize((DRAWN_SIDE, DRAWN_SIDE), Image.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    noise = np.random.default_rng(number).standard_normal((DRAWN_SIDE, DRAWN_SIDE, 3), np.float32)
    light, shift = 0.8 + 0.4 * rng.random(), 30 * (rng.random() - 0.5)
    pixels = np.asarray(part, np.float32) * light + shift + PHOTO_GRAIN * noise
    return np.clip(pixels, 0, 255).astype(np.uint8)


def data_folder() -> Path:
    """The folder of all data that this module makes."""
    return cache_folder() / "loader"


def shard_set(encoding: str) -> Path:
    """The shard set with this encoding, built if it is missing."""
    out = data_folder() / encoding / "photographs"
    if not DatasetLayout(out).manifest.exists():
        data = os.environ.get("REAL_DATA")
        if data is None:
            raise SystemExit("REAL_DATA must name the folder of real photographs")
        source = PhotographSource(name="photographs", root=Path(data).absolute() / PHOTOS)
        stored = (Encoding.parse(SHARD_ENCODINGS[encoding]),) * len(DEFAULT_SIZES)
        build_shards(source, out, Recipe(sizes=DEFAULT_SIZES, encodings=stored), Run(quiet=False))
    return out.parent


def stored_bytes(encoding: str, size: int) -> Iterator[tuple[int, int, bytes]]:
    """Row, class and stored bytes of every image, in the index's order."""
    opened = ShardSet.open(shard_set(encoding))
    (dataset,) = opened
    class_ids = dataset.index["class_id"].tolist()
    stored = _read_stored(opened, size, np.arange(len(class_ids)))
    yield from zip(range(len(class_ids)), class_ids, stored, strict=True)


def _read_stored(opened: ShardSet, size: int, rows: NDArray[np.int64]) -> Iterator[bytes]:
    (dataset,), store = opened, opened.open_store()
    locations = locate_samples(dataset, size, rows)
    for at, length in enumerate(locations.lengths):
        data = bytearray(length)
        store.read(locations, at, (memoryview(data),))
        yield bytes(data)
    store.close()


def reference_pixels(encoding: str, size: int, rows: NDArray[np.int64]) -> NDArray[np.int16]:
    """The pixels that images should have: decoded by Pillow, or as stored."""
    stored = _read_stored(ShardSet.open(shard_set(encoding)), size, np.asarray(rows))
    return np.stack([np.asarray(decode_stored(data), np.int16) for data in stored])


def decode_stored(data: bytes) -> Any:
    """A stored image, opened by Pillow or numpy."""
    if data.startswith(b"\xff\xd8"):
        return Image.open(io.BytesIO(data)).convert("RGB")
    return np.load(io.BytesIO(data), allow_pickle=False)


def write_image_folder(out: Path, size: int) -> None:
    """Write folders of classes, for DALI's episodes of files and for an ImageFolder."""
    for row, class_id, data in stored_bytes("jpeg", size):
        file = out / f"{class_id:03d}" / f"{row:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _record(row: tuple[int, int, bytes]) -> dict[str, Any]:
    return {"class_id": row[1], "image": row[2]}


def write_litdata(out: Path, size: int) -> None:
    """Write litdata's chunks with the bytes of the JPEGs."""
    from litdata import optimize  # noqa: PLC0415

    rows = list(stored_bytes("jpeg", size))
    optimize(fn=_record, inputs=rows, output_dir=str(out), num_workers=1, chunk_bytes="64MB")


def write_mosaicml(out: Path, size: int) -> None:
    """Write MosaicML streaming's shards with the bytes of the JPEGs."""
    stand_in_for_torchvision()
    from streaming import MDSWriter  # noqa: PLC0415

    with MDSWriter(out=str(out), columns={"class_id": "int", "image": "bytes"}) as writer:
        for row in stored_bytes("jpeg", size):
            writer.write(_record(row))


class DecodedImages:
    """Images by number, as FFCV's writer takes them."""

    def __init__(self, encoding: str, size: int) -> None:
        self._rows = list(stored_bytes(encoding, size))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        _, class_id, data = self._rows[number]
        return decode_stored(data), class_id


def write_ffcv(out: Path, size: int, encoding: str) -> None:
    """Write FFCV's file. Its writer takes only pixels, so it encodes JPEGs again, at our quality."""
    from ffcv.fields import IntField, RGBImageField  # noqa: PLC0415
    from ffcv.writer import DatasetWriter  # noqa: PLC0415

    out.mkdir()
    mode = {"jpeg": "jpg", "raw": "raw"}[encoding]
    fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=95), "label": IntField()}
    writer = DatasetWriter(str(out / "all.beton"), fields, num_workers=1)
    writer.from_indexed_dataset(DecodedImages(encoding, size))


EXPORTS: Final[dict[str, tuple[Callable[[Path, int], None], str]]] = {
    "image_folder": (write_image_folder, "PIL"),
    "litdata": (write_litdata, "litdata"),
    "mosaicml": (write_mosaicml, "streaming"),
    "ffcv": (partial(write_ffcv, encoding="jpeg"), "ffcv"),
    "ffcv_raw": (partial(write_ffcv, encoding="raw"), "ffcv"),
}
"""Each peer's copy, and the module that must be installed for it."""


def peer_copy(name: str, size: int) -> Path:
    """A peer's copy of the images of one size, made in a process of its own if it is missing."""
    out = data_folder() / f"{name}-{size}"
    if not out.exists():
        shard_set("raw" if name == "ffcv_raw" else "jpeg")
        command = [sys.executable, "-m", "benchmarks.loader_data", name, str(size)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return out


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name", nargs="?", choices=EXPORTS)
    parser.add_argument("size", nargs="?", type=int, choices=DEFAULT_SIZES)
    arguments = parser.parse_args()
    if arguments.name:
        partial = data_folder() / f"{arguments.name}-{arguments.size}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        EXPORTS[arguments.name][0](partial, arguments.size)
        partial.rename(data_folder() / f"{arguments.name}-{arguments.size}")
        return
    for encoding in SHARD_ENCODINGS:
        print(shard_set(encoding))
    for name, (_, module) in EXPORTS.items():
        for size in DEFAULT_SIZES:
            missing = f"{name}: not installed, left out"
            print(peer_copy(name, size) if is_installed(module) else missing)


if __name__ == "__main__":
    main()
