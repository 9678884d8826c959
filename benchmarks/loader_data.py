"""What the loader's benchmarks read: 10,000 pictures as our shards, then the same bytes as peers want them.

    REAL_DATA=folder python -m benchmarks.loader_data           make all that is missing
    REAL_DATA=folder python -m benchmarks.loader_data ffcv 224  one peer's copy at one size

The pictures are cut out of real photographs, mirrored, brightened and given a sensor's grain.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.contenders import stand_in_for_torchvision
from benchmarks.workloads import PHOTOS, cache_folder
from pipeline.build.builder import Run, build_shards
from pipeline.layout import Layout
from pipeline.records import ClassRecord, Encoding, Item, Pixels, Recipe, Rejected, Survey
from pipeline.shardset import ShardSet
from pipeline.sources.base import Source
from pipeline.store.local import spots_of

ROOT: Final = Path(__file__).resolve().parents[1]
SIZES: Final = (84, 224)
CLASSES: Final = 100
PICTURES: Final = 100  # of a class
SIDE: Final = (
    256  # pixels drawn; a little more than the largest size, so that it is not an enlargement
)
GRAIN: Final = 1.5  # grey levels
ENCODINGS: Final = {"jpeg": "jpeg:95", "raw": "raw"}
"""The two shard sets and how they store their pictures, at both sizes."""


@dataclass(frozen=True, kw_only=True)
class Photographs(Source):
    """`root` is the tar of photographs; a class is one of them, seen in many ways."""

    def survey(self) -> Survey:
        """Pictures that exist nowhere until they are drawn."""
        classes = tuple(ClassRecord(name=f"photo-{number:03d}") for number in range(CLASSES))
        items = (
            Item(f"{record.name}/{number:03d}", class_id, offset=number)
            for class_id, record in enumerate(classes)
            for number in range(PICTURES)
        )
        return Survey(classes=classes, items=items)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Draw them."""
        for item in items:
            yield seen(_photo(self.root, item.class_id), item.class_id * PICTURES + item.offset)


@lru_cache(maxsize=4)
def _photo(archive: Path, number: int) -> Image.Image:
    with tarfile.open(archive) as tar:
        members = sorted((m for m in tar if m.isfile()), key=lambda member: member.name)
        file = tar.extractfile(members[number])
        assert file is not None
        return Image.open(io.BytesIO(file.read())).convert("RGB")


def seen(photo: Image.Image, number: int) -> NDArray[np.uint8]:
    """One of many pictures of a photograph."""
    dice = Random(number)
    side = min(photo.size) * (0.5 + 0.5 * dice.random())
    left, upper = (dice.random() * (length - side) for length in photo.size)
    box = (left, upper, left + side, upper + side)
    part = photo.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    if dice.random() < 0.5:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    noise = np.random.default_rng(number).standard_normal((SIDE, SIDE, 3), np.float32)
    light, shift = 0.8 + 0.4 * dice.random(), 30 * (dice.random() - 0.5)
    pixels = np.asarray(part, np.float32) * light + shift + GRAIN * noise
    return np.clip(pixels, 0, 255).astype(np.uint8)


def installed(module: str) -> bool:
    """Whether it can be imported; nothing is, but the packages that it lies in."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def folder() -> Path:
    """Where everything of this module lies."""
    return cache_folder() / "loader"


def shards(encoding: str) -> Path:
    """The shard set whose pictures are stored like this, built if it is missing."""
    out = folder() / encoding / "photographs"
    if not Layout(out).manifest.exists():
        data = os.environ.get("REAL_DATA")
        if data is None:
            raise SystemExit("REAL_DATA must name the folder of real photographs")
        source = Photographs(name="photographs", root=Path(data).absolute() / PHOTOS)
        stored = (Encoding.parse(ENCODINGS[encoding]),) * len(SIZES)
        build_shards(source, out, Recipe(sizes=SIZES, encodings=stored), Run(quiet=False))
    return out.parent


def stored_bytes(encoding: str, size: int) -> Iterator[tuple[int, int, bytes]]:
    """Row, class and stored bytes of every picture, in the index's order."""
    opened = ShardSet.open(shards(encoding))
    (dataset,), store = opened, opened.open_store()
    spots = spots_of(dataset, size, np.arange(len(dataset.index)))
    for row, class_id in enumerate(dataset.index["class_id"].tolist()):
        data = bytearray(spots.lengths[row])
        store.read(spots, row, (memoryview(data),))
        yield row, class_id, bytes(data)
    store.close()


def reference(encoding: str, size: int, rows: NDArray[np.int64]) -> NDArray[np.int16]:
    """What these pictures should look like: Pillow's pixels, or the stored ones."""
    opened = ShardSet.open(shards(encoding))
    (dataset,), store = opened, opened.open_store()
    spots = spots_of(dataset, size, np.asarray(rows))
    pictures = []
    for at, length in enumerate(spots.lengths):
        data = bytearray(length)
        store.read(spots, at, [memoryview(data)])
        pictures.append(np.asarray(as_pixels(bytes(data)), np.int16))
    store.close()
    return np.stack(pictures)


def as_pixels(data: bytes) -> Any:
    """A stored picture as Pillow or numpy opens it."""
    if data.startswith(b"\xff\xd8"):
        return Image.open(io.BytesIO(data)).convert("RGB")
    return np.load(io.BytesIO(data), allow_pickle=False)


def image_folder(out: Path, size: int) -> None:
    """Folders of classes, for DALI's episodes over files and for torchvision's way."""
    for row, class_id, data in stored_bytes("jpeg", size):
        file = out / f"{class_id:03d}" / f"{row:06d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _record(row: tuple[int, int, bytes]) -> dict[str, Any]:
    return {"class_id": row[1], "image": row[2]}


def litdata(out: Path, size: int) -> None:
    """litdata's chunks of the JPEGs' bytes."""
    from litdata import optimize  # noqa: PLC0415

    rows = list(stored_bytes("jpeg", size))
    optimize(fn=_record, inputs=rows, output_dir=str(out), num_workers=1, chunk_bytes="64MB")


def mosaicml(out: Path, size: int) -> None:
    """MosaicML streaming's shards of the JPEGs' bytes."""
    stand_in_for_torchvision()
    from streaming import MDSWriter  # noqa: PLC0415

    with MDSWriter(out=str(out), columns={"class_id": "int", "image": "bytes"}) as writer:
        for row in stored_bytes("jpeg", size):
            writer.write(_record(row))


class Decoded:
    """What FFCV's writer takes: pictures by number."""

    def __init__(self, encoding: str, size: int) -> None:
        self._rows = list(stored_bytes(encoding, size))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        _, class_id, data = self._rows[number]
        return as_pixels(data), class_id


def ffcv(out: Path, size: int, encoding: str) -> None:
    """FFCV's file. Its writer takes pixels only, so it encodes JPEGs again, at our quality."""
    from ffcv.fields import IntField, RGBImageField  # noqa: PLC0415
    from ffcv.writer import DatasetWriter  # noqa: PLC0415

    out.mkdir()
    mode = {"jpeg": "jpg", "raw": "raw"}[encoding]
    fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=95), "label": IntField()}
    writer = DatasetWriter(str(out / "all.beton"), fields, num_workers=1)
    writer.from_indexed_dataset(Decoded(encoding, size))


EXPORTS: Final[dict[str, tuple[Callable[[Path, int], None], str]]] = {
    "image_folder": (image_folder, "PIL"),
    "litdata": (litdata, "litdata"),
    "mosaicml": (mosaicml, "streaming"),
    "ffcv": (partial(ffcv, encoding="jpeg"), "ffcv"),
    "ffcv_raw": (partial(ffcv, encoding="raw"), "ffcv"),
}
"""Each peer's copy, and the module that must be installed for it."""


def export(name: str, size: int) -> Path:
    """A peer's copy of the pictures of one size, made if it is missing, in a process of its own."""
    out = folder() / f"{name}-{size}"
    if not out.exists():
        shards("raw" if name == "ffcv_raw" else "jpeg")
        command = [sys.executable, "-m", "benchmarks.loader_data", name, str(size)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    return out


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("name", nargs="?", choices=EXPORTS)
    parser.add_argument("size", nargs="?", type=int, choices=SIZES)
    arguments = parser.parse_args()
    if arguments.name:
        partial = folder() / f"{arguments.name}-{arguments.size}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        EXPORTS[arguments.name][0](partial, arguments.size)
        partial.rename(folder() / f"{arguments.name}-{arguments.size}")
        return
    for encoding in ENCODINGS:
        print(shards(encoding))
    for name, (_, module) in EXPORTS.items():
        for size in SIZES:
            print(export(name, size) if installed(module) else f"{name}: not installed, left out")


if __name__ == "__main__":
    main()
