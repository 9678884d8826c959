"""Pictures as people have them become what a learner takes: files, folders, PIL images, tensors.

A picture is decoded, turned upright and resized by the code that builds shards, so it has the pixels that
a learner was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from learners.learner import CHANNELS_FIRST
from pipeline.build.images import DECODE_ERRORS, clean, resized, rgb
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.process import usable_cores
from pipeline.records import Item, Resizing
from pipeline.sources.folder import IGNORED

Picture: TypeAlias = "str | Path | bytes | Image.Image | Tensor"
"""A file, an encoded picture, a PIL image, or 3 x H x W pixels of uint8."""
Pictures: TypeAlias = "Picture | Sequence[Picture]"
"""One or several; a path may be a folder, and a tensor N x 3 x H x W."""
CHANNELS_LAST: Final = (1, 2, 0)
NAMED: Final = 5  # pictures that an error names; the rest is counted
PHONE: Final = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif")


def listed(pictures: Pictures) -> list[Picture]:
    """One by one; a folder is all files below it, in the order of their names."""
    if isinstance(pictures, str | Path):
        return list(_files(Path(pictures)))
    if isinstance(pictures, bytes | Image.Image):
        return [pictures]
    if isinstance(pictures, Tensor) and pictures.ndim == 4:  # noqa: PLR2004 - N, channels, height, width
        return [_checked(picture) for picture in pictures.unbind()]
    if isinstance(pictures, Tensor):
        return [_checked(pictures)]
    return [
        one
        for picture in pictures
        for one in (listed(picture) if isinstance(picture, str | Path) else [_checked(picture)])
    ]


def pixels(pictures: Sequence[Picture], size: int, how: Resizing, names: Sequence[str]) -> Tensor:
    """uint8, n x 3 x size x size, in the memory format in which images travel.

    names: what the error calls each picture; it names all that cannot be used.
    """

    def read(picture: Picture) -> Tensor | str:
        try:
            return _pixels(picture, size, how)
        except IntegrityError as error:
            return str(error)

    with ThreadPoolExecutor(max(1, min(usable_cores(), len(pictures)))) as pool:
        found = list(pool.map(read, pictures))
    problems = [
        f"{name}: {one}" for name, one in zip(names, found, strict=True) if isinstance(one, str)
    ]
    if problems:
        more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
        count = "a picture" if len(problems) == 1 else f"{len(problems)} pictures"
        raise IntegrityError(
            f"{count} cannot be used: {'; '.join(problems[:NAMED])}{more}; replace it or take it out"
        )
    return torch.stack([one for one in found if isinstance(one, Tensor)]).permute(CHANNELS_FIRST)


def described(pictures: Sequence[Picture]) -> list[str]:
    """What an error calls each picture: its file, or its place among them."""
    return [
        str(picture) if isinstance(picture, str | Path) else f"picture {at}"
        for at, picture in enumerate(pictures, start=1)
    ]


def refuse_phone_formats(data: bytes) -> None:
    """What phones write by default gets a sentence of its own."""
    if data[4:8] == b"ftyp" and data[8:12] in PHONE:
        raise IntegrityError("HEIC or AVIF, which is not read here; save it as JPEG or PNG")


def litter(name: str) -> bool:
    """Whether a file of this name is hidden, or was left behind by a file manager."""
    return name.lower() in IGNORED or name.startswith(".")


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        files = (path for path in sorted(place.rglob("*")) if path.is_file())
        return [path for path in files if not any(map(litter, path.relative_to(place).parts))]
    if not place.exists():
        raise SourceMissing(f"{place}: there is no such picture or folder")
    return [place]


def _checked(picture: Picture) -> Picture:
    if isinstance(picture, bytes | Image.Image):
        return picture
    if not isinstance(picture, Tensor):
        raise UsageError(
            f"a picture is a path, a PIL image or a tensor, not {type(picture).__name__}; "
            "PIL.Image.fromarray takes arrays of RGB"
        )
    if picture.dtype != torch.uint8 or picture.ndim != 3 or len(picture) != 3:  # noqa: PLR2004 - RGB
        raise UsageError(
            "tensors of pictures are uint8, N x 3 x H x W, with values to 255; got one of "
            f"{picture.dtype} and a shape of {(*picture.shape,)} for each"
        )
    return picture


def _pixels(picture: Picture, size: int, how: Resizing) -> Tensor:
    """size x size x 3."""
    if isinstance(picture, Tensor) and picture.shape[1:] == (size, size):
        return picture.permute(CHANNELS_LAST).cpu()
    return torch.from_numpy(np.array(resized(_image(picture), size, how)))


def _image(picture: Picture) -> Image.Image:
    """Upright RGB of any size."""
    try:
        if isinstance(picture, str | Path | bytes):
            data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
            refuse_phone_formats(data)
            return clean(data, Item(name="", class_id=0))
        if isinstance(picture, Tensor):
            picture = Image.fromarray(picture.permute(CHANNELS_LAST).cpu().numpy())
        if 0 in picture.size:
            raise IntegrityError("it has no pixels")
        return rgb(ImageOps.exif_transpose(picture))
    except DECODE_ERRORS as error:
        raise IntegrityError(f"cannot be read: {error}") from error
