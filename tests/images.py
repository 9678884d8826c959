"""Small real images, folders of them, the images in shards, and the fingerprint of a folder."""

from __future__ import annotations

import hashlib
import io
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.index import Dataset
from pipeline.show.stored_images import read_images
from pipeline.store.local import LocalStore


def make_image(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth, colourful image; another seed gives another one."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg_bytes(seed: int, width: int = 40, height: int = 30) -> bytes:
    """The same image as JPEG bytes."""
    buffer = io.BytesIO()
    make_image(seed, width, height).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def fill_class_folders(root: Path, classes: dict[str, int]) -> Path:
    """Fill a folder with `class/image` files, so many in each class."""
    for position, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.jpg").write_bytes(jpeg_bytes(1000 * position + number))
    return root


def tree_hashes(root: Path) -> dict[str, str]:
    """The sha256 of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def stored_image(dataset: Dataset, size: int, row: int) -> Image.Image:
    """The image of one row of the index, as it lies in a local shard."""
    with closing(LocalStore()) as store:
        return next(read_images(store, dataset, size, [row]))
