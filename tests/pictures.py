"""Small real pictures, folders of them, and the fingerprint of a folder."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 40, height: int = 30) -> Image.Image:
    """A smooth, colourful picture; another seed gives another one."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def jpeg(seed: int, width: int = 40, height: int = 30) -> bytes:
    """The same as JPEG bytes."""
    buffer = io.BytesIO()
    picture(seed, width, height).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def fill(root: Path, classes: dict[str, int]) -> Path:
    """A `class/image` tree with so many pictures in each class."""
    for position, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number:03d}.jpg").write_bytes(jpeg(1000 * position + number))
    return root


def tree_hash(root: Path) -> dict[str, str]:
    """The sha256 of every file below a folder."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }
