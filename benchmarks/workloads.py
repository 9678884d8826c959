"""The images that the benchmarks build: real ones, and frames as large as ORBIT's drawn from them."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.records import Item, Survey
from pipeline.sources.folder import FolderSource

FRAME_PIXELS: Final = 1080  # pixels, ORBIT's side
FRAMES: Final = 150
FRAME_QUALITY: Final = 90
GRAIN: Final = 2.5  # grey levels of sensor noise
PHOTOS: Final = "photos/photos.tar"
CALTECH: Final = "caltech101/101_ObjectCategories_50.tar"


@dataclass(frozen=True, kw_only=True)
class CycledFolder(FolderSource):
    """The images of a folder over and over, each time under other names, until there are `images`."""

    images: int

    def survey(self) -> Survey:
        """The folder's items, repeated."""
        whole = super().survey()
        items = [item for item in whole.items if isinstance(item, Item)]
        return replace(whole, items=self._again(items))

    def _again(self, items: Sequence[Item]) -> Iterator[Item]:
        for number, item in enumerate(islice(cycle(items), self.images)):
            yield item._replace(name=f"{number // len(items)}/{item.name}")


def cache_folder() -> Path:
    """The folder for files that are generated once."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("LITE_SHARDS_CACHE") or Path(base) / "lite-shards") / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def workloads(data: Path) -> dict[str, Path]:
    """The tars of images by name; frames are drawn the first time."""
    frames = cache_folder() / f"frames-{FRAMES}.tar"
    if not frames.exists():  # in a process of its own: a child's peak memory counts its parent's
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(draw_frames, data / PHOTOS, frames).result()
    return {"photos": data / PHOTOS, "caltech": data / CALTECH, "frames": frames}


def draw_frames(photos: Path, target: Path) -> None:
    """Draw square JPEGs with the detail, the texture and the grain of a camera's frames."""
    with tarfile.open(photos) as archive:
        members = (archive.extractfile(member) for member in archive)
        images = [Image.open(io.BytesIO(m.read())).convert("RGB") for m in members if m is not None]
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w") as archive:
        for number in range(FRAMES):
            buffer = io.BytesIO()
            draw_frame(images, number).save(buffer, "JPEG", quality=FRAME_QUALITY)
            entry = tarfile.TarInfo(f"frames/clip {number // 50}/{number:05d}.jpg")
            entry.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(entry, buffer)
    partial.replace(target)


def draw_frame(images: Sequence[Image.Image], number: int) -> Image.Image:
    """Enlarge one photograph and add fine texture of another one, which an enlargement lacks."""
    dice = random.Random(number)
    scene, other = (_square(image, dice) for image in dice.sample(images, 2))
    texture = other.resize((FRAME_PIXELS // 2, FRAME_PIXELS // 2))
    detail = _floats(texture) - _floats(texture.filter(ImageFilter.GaussianBlur(4)))
    pixels = _floats(scene) + 0.4 * np.tile(detail, (2, 2, 1))
    pixels += np.random.default_rng(number).normal(0, GRAIN, pixels.shape).astype(np.float32)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _square(image: Image.Image, dice: random.Random) -> Image.Image:
    side = int(min(image.size) * (0.6 + 0.4 * dice.random()))
    left = int(dice.random() * (image.width - side))
    upper = int(dice.random() * (image.height - side))
    box = (left, upper, left + side, upper + side)
    return image.resize((FRAME_PIXELS, FRAME_PIXELS), Image.Resampling.BICUBIC, box=box)


def _floats(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image, np.float32)
