"""Datasets of 28 x 28 grey pixels in arrays: Quick, Draw! (.npy) and MNIST (IDX)."""

from __future__ import annotations

import math
import re
import struct
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.constants import OPEN_FILES
from pipeline.errors import IntegrityError
from pipeline.records import Item, Pixels, Rejected
from pipeline.sources.archives import source_file
from pipeline.sources.inflation import plain_file
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.parts import locate_part
from pipeline.sources.meta_dataset.raw import ListedImage, RawListing, RawSource
from pipeline.sources.spans import FileSpan, read_list, span_file

GREY_SIDE: Final = 28  # pixels
GREY_PIXELS: Final = GREY_SIDE * GREY_SIDE
WHITE_LEVEL: Final = 255
ROWS_HEADER: Final = re.compile(
    r"\{'descr': '\|([ub])1', 'fortran_order': False, 'shape': \((\d{1,10}(?:, \d{1,4}){1,2})\), \}\s*"
)
"""The header that NumPy writes for rows of bytes: their kind, and the sizes of the array."""
BYTE_KINDS: Final = {"u": np.uint8, "b": np.bool_}
BROWSER_PREFIX: Final = "full_numpy_bitmap_"  # of files saved from the bucket's web page


@dataclass(frozen=True, kw_only=True)
class QuickDrawSource(RawSource):
    """50 million drawings, a .npy for each class; a limit per class takes evenly spread rows."""

    name: str = "quickdraw"
    parts = DOWNLOADS["quickdraw"]

    def list_images(self) -> RawListing:
        """List the rows of each class's file, of which only the header is read."""
        folder = locate_part(self.parts[0], self.root)
        assert folder is not None  # `is_available` holds
        files = {path.stem.removeprefix(BROWSER_PREFIX): path for path in sorted(folder.glob("*.npy"))}
        official = {entry.record.name for entry in self.classes()}
        sizes = {name: len(_open_rows(path)) for name, path in files.items() if name in official}
        images: dict[str, Iterable[ListedImage]] = dict.fromkeys(files, ())
        images |= {name: self._list_rows(name, files[name], size) for name, size in sizes.items()}
        file_sizes = tuple(map(source_file, files.values()))
        return RawListing(images=images, where=str(folder), sizes=sizes, files=file_sizes)

    def _list_rows(self, name: str, path: Path, size: int) -> Iterator[ListedImage]:
        file = span_file(path.relative_to(self.root).as_posix())
        for row in evenly_spread(size, self.limit_per_class):
            yield ListedImage(f"{name}/{row}", FileSpan(file, row, 1))

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Yield the drawings white on black, as Meta-Dataset has them."""
        opened: OrderedDict[str, NDArray[Any]] = OrderedDict()
        for item in items:
            if item.file not in opened:
                opened[item.file] = _open_rows(self.root / item.file)
                if len(opened) > OPEN_FILES:
                    opened.popitem(last=False)
            row = opened[item.file][item.offset].reshape(GREY_SIDE, GREY_SIDE)
            yield row * np.uint8(WHITE_LEVEL) if row.dtype == np.bool_ else np.array(row)


def _open_rows(path: Path) -> NDArray[Any]:
    """Map the array of a class; anything but rows of pixels is refused, above all pickled objects."""
    if not path.is_file():
        raise IntegrityError(f"{path} is not a file; download it from numpy_bitmap")
    try:
        start, text = _array_header(path)
        match = ROWS_HEADER.fullmatch(text)
        sides = [int(side) for side in match[2].split(",")] if match else []
        if match is None or math.prod(sides[1:]) != GREY_PIXELS:
            raise IntegrityError(
                f"{path} should hold rows of {GREY_PIXELS} bytes and holds {text.strip():.120}; "
                "download it from numpy_bitmap"
            )
        return np.memmap(path, BYTE_KINDS[match[1]], "r", start, tuple(sides))
    except ValueError as error:
        raise IntegrityError(f"{path} is no array, or cut off ({error}); copy it again") from error


def _array_header(path: Path) -> tuple[int, str]:
    """Where the values of an .npy file start, and what its header says; NumPy would evaluate that."""
    with path.open("rb") as file:
        magic, length = file.read(8), int.from_bytes(file.read(2), "little")
        header = file.read(length)
    if magic != b"\x93NUMPY\x01\0" or len(header) < length:
        raise ValueError("it does not start as one")
    return len(magic) + 2 + length, header.decode("latin-1")


def evenly_spread(count: int, limit: int | None) -> Sequence[int]:
    """All positions, or as many as the limit allows, evenly from the first to the last.

    >>> evenly_spread(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or count <= limit:
        return range(count)
    return [step * count // limit for step in range(limit)]


@dataclass(frozen=True, kw_only=True)
class MnistSource(RawSource):
    """MNIST's test files: ten classes that LITE adds to the training split."""

    name: str = "mnist"
    parts = DOWNLOADS["mnist"]

    def list_images(self) -> RawListing:
        """List the images of two IDX files, as published (gzip) or inflated."""
        images_path, labels_path = (locate_part(part, self.root) for part in self.parts)
        assert images_path is not None  # `is_available` holds
        assert labels_path is not None
        plain, file = self._plain_file(images_path)
        start, count = _idx_images(plain, images_path)
        digits = _idx_labels(self._plain_file(labels_path)[0], labels_path)
        if len(digits) != count:
            raise IntegrityError(
                f"{images_path} holds {count:,} pictures and {labels_path} {len(digits):,} labels; they "
                "do not belong together, download both again"
            )
        images: dict[str, list[ListedImage]] = {}
        for number, digit in enumerate(digits):
            span = FileSpan(file, start + number * GREY_PIXELS, GREY_PIXELS)
            images.setdefault(f"class_{digit}", []).append(ListedImage(f"{number:05d}", span))
        files = (source_file(images_path), source_file(labels_path))
        return RawListing(images=images, where=str(images_path), files=files)

    def _plain_file(self, path: Path) -> tuple[Path, str]:
        return plain_file(path, span_file(path.relative_to(self.root).as_posix()), self.scratch)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """Yield the digits white on black."""
        for data in super().pictures(items):
            if isinstance(data, bytes):
                yield np.frombuffer(data, np.uint8).reshape(GREY_SIDE, GREY_SIDE)
            else:
                yield data


def _idx_images(plain: Path, path: Path) -> tuple[int, int]:
    """Where the first image of an IDX file starts, and how many images there are."""
    header = struct.Struct(">2x2B3I")  # zeros, type (8: byte), dimensions, their sizes
    with plain.open("rb") as file:
        data = file.read(header.size)
    kind = header.unpack(data) if len(data) == header.size else ()
    if kind[:2] != (8, 3) or kind[3:] != (GREY_SIDE, GREY_SIDE):
        raise IntegrityError(
            f"{path} does not hold {GREY_SIDE} x {GREY_SIDE} pixels in IDX; download it again"
        )
    count = kind[2]
    if (size := plain.stat().st_size) != header.size + count * GREY_PIXELS:
        raise IntegrityError(
            f"{path} should hold {count:,} pictures, {header.size + count * GREY_PIXELS:,} bytes, and holds "
            f"{size:,}; download it again"
        )
    return header.size, count


def _idx_labels(plain: Path, path: Path) -> bytes:
    """The labels of an IDX file, one byte each."""
    header = struct.Struct(">2x2BI")
    data = read_list(plain)
    start = header.unpack(data[: header.size]) if len(data) >= header.size else ()
    if start[:2] != (8, 1) or start[2] != len(data) - header.size:
        raise IntegrityError(f"{path} does not hold labels in IDX; download it again")
    return data[header.size :]
