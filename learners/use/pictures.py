"""Load images from files, folders, bytes, PIL images or tensors as the pixels that a learner takes.

They are decoded, turned upright and resized by the code that builds shards, so a learner sees pixels like
those that it was trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from learners.task import CHANNELS_FIRST
from pipeline.build.images import DECODE_ERRORS, convert_to_rgb, decode_image, resize_to_square
from pipeline.errors import IntegrityError, SourceMissing, UsageError, first_few
from pipeline.foreign_files import UnfitFileError, read_regular
from pipeline.process import usable_cores
from pipeline.records import ResizeMethod
from pipeline.sources.archives import is_litter
from pipeline.sources.spans import MEMBER_LIMIT

ImageInput: TypeAlias = "str | Path | bytes | Image.Image | Tensor"
"""A file, the bytes of one, a PIL image, or 3 x H x W pixels of uint8."""
ImageInputs: TypeAlias = "ImageInput | Sequence[ImageInput]"
"""One or several; a path may be a folder, and a tensor N x 3 x H x W."""
CHANNELS_LAST: Final = (1, 2, 0)
log = logging.getLogger(__name__)
PHONE_FORMATS: Final = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif")


def list_images(images: ImageInputs) -> list[ImageInput]:
    """List images one by one; a folder is all files below it, in the order of their names."""
    if isinstance(images, str | Path):
        return list(_files_below(Path(images)))
    if isinstance(images, bytes | Image.Image):
        return [images]
    if isinstance(images, Tensor) and images.ndim == 4:  # noqa: PLR2004 - N, channels, height, width
        return [_check_image(image) for image in images.unbind()]
    if isinstance(images, Tensor):
        return [_check_image(images)]
    return [
        one
        for image in images
        for one in (list_images(image) if isinstance(image, str | Path) else [_check_image(image)])
    ]


def load_pixels(
    images: Sequence[ImageInput], size: int, resizing: ResizeMethod, names: Sequence[str]
) -> Tensor:
    """Load images as uint8, n x 3 x size x size, channels last in memory like a loader's.

    names: what the error calls each image; one error lists all images that cannot be used. A warning names
    those whose files are damaged, and which are used with gaps.
    """

    def read(image: ImageInput, name: str) -> Tensor | str:
        try:
            return _read_pixels(image, size, resizing, name)
        except IntegrityError as error:
            return str(error)

    with ThreadPoolExecutor(max(1, min(usable_cores(), len(images)))) as pool:
        results = list(pool.map(read, images, names))
    problems = [f"{name}: {one}" for name, one in zip(names, results, strict=True) if isinstance(one, str)]
    if problems:
        count = "a picture" if len(problems) == 1 else f"{len(problems)} pictures"
        raise IntegrityError(
            f"{count} cannot be used: {first_few(problems, '; ')}; replace it or take it out"
        )
    return torch.stack([one for one in results if isinstance(one, Tensor)]).permute(CHANNELS_FIRST)


def image_names(images: Sequence[ImageInput]) -> list[str]:
    """Names of images for errors and tables: the file, or the position among them."""
    return [
        str(image) if isinstance(image, str | Path) else f"picture {at}"
        for at, image in enumerate(images, start=1)
    ]


def refuse_phone_formats(data: bytes) -> None:
    """Raise an error that says how to convert what phones write by default."""
    if data[4:8] == b"ftyp" and data[8:12] in PHONE_FORMATS:
        raise IntegrityError("HEIC or AVIF, which is not read here; save it as JPEG or PNG")


def is_hidden(name: str) -> bool:
    """Whether a file of this name is hidden, or was left behind by a file manager."""
    return name.startswith(".") or is_litter(name)


def _files_below(path: Path) -> list[Path]:
    if path.is_dir():
        files = (file for file in sorted(path.rglob("*")) if file.is_file())
        return [file for file in files if not any(map(is_hidden, file.relative_to(path).parts))]
    if not path.exists():
        raise SourceMissing(f"{path}: there is no such picture or folder")
    return [path]


def _check_image(image: ImageInput) -> ImageInput:
    if isinstance(image, bytes | Image.Image):
        return image
    if not isinstance(image, Tensor):
        raise UsageError(
            f"a picture is a path, a PIL image or a tensor, not {type(image).__name__}; "
            "PIL.Image.fromarray takes arrays of RGB"
        )
    if image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:  # noqa: PLR2004 - RGB
        raise UsageError(
            "tensors of pictures are uint8, N x 3 x H x W, with values to 255; got one of "
            f"{image.dtype} and a shape of {(*image.shape,)} for each"
        )
    return image


def _read_pixels(image: ImageInput, size: int, resizing: ResizeMethod, name: str) -> Tensor:
    """The pixels of one image, size x size x 3."""
    if isinstance(image, Tensor) and image.shape[1:] == (size, size):
        return image.permute(CHANNELS_LAST).cpu()
    return torch.from_numpy(np.array(resize_to_square(_open_image(image, name), size, resizing)))


def _open_image(image: ImageInput, name: str) -> Image.Image:
    """One image upright, in RGB, of any size."""
    try:
        if isinstance(image, str | Path | bytes):
            data = image if isinstance(image, bytes) else read_regular(Path(image), MEMBER_LIMIT)
            refuse_phone_formats(data)
            image, damage = decode_image(data)
            if damage:
                log.warning("%s is used with gaps, as its file is damaged: %s", name, damage)
            return convert_to_rgb(image)
        if isinstance(image, Tensor):
            image = Image.fromarray(image.permute(CHANNELS_LAST).cpu().numpy())
        if 0 in image.size:
            raise IntegrityError("it has no pixels")
        return convert_to_rgb(ImageOps.exif_transpose(image))
    except UnfitFileError as error:
        raise IntegrityError(f"the file {error.strerror}") from error
    except DECODE_ERRORS as error:
        raise IntegrityError(f"cannot be read: {error}") from error
