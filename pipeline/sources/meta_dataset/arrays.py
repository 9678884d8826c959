"""Datasets of 28 x 28 grey pixels in arrays: Quick, Draw! (.npy) and MNIST (IDX)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.constants import OPEN_FILES
from pipeline.errors import IntegrityError, UsageError
from pipeline.records import Item, Pixels, Rejected, SourceFile
from pipeline.sources.archives import inflated
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.parts import located
from pipeline.sources.meta_dataset.raw import Listing, Picture, RawSource
from pipeline.sources.spans import Span

SIDE: Final = 28  # pixels
PIXELS: Final = SIDE * SIDE
WHITE: Final = 255
BROWSER_PREFIX: Final = "full_numpy_bitmap_"  # of files saved from the bucket's web page


@dataclass(frozen=True, kw_only=True)
class QuickDraw(RawSource):
    """50 million drawings, a .npy for each class; a cap per class takes rows evenly spread."""

    name: str = "quickdraw"
    parts = DOWNLOADS["quickdraw"]

    def listing(self) -> Listing:
        """A class's pictures are the rows of its file; only the file's header is read."""
        folder = located(self.parts[0], self.root)
        assert folder is not None  # `found` holds
        files = {
            path.stem.removeprefix(BROWSER_PREFIX): path for path in sorted(folder.glob("*.npy"))
        }
        known = {entry.record.name for entry in self.classes()}
        sizes = {name: len(_rows(path)) for name, path in files.items() if name in known}
        pictures: dict[str, Iterable[Picture]] = dict.fromkeys(files, ())
        for name, size in sizes.items():
            pictures[name] = self._pictures(name, files[name], size)
        return Listing(pictures=pictures, where=str(folder), sizes=sizes, files=_about(files))

    def _pictures(self, name: str, path: Path, size: int) -> Iterator[Picture]:
        file = path.relative_to(self.root).as_posix()
        for row in spread(size, self.limit_per_class):
            yield Picture(f"{name}/{row}", Span(file, row, 1))

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """White on black, as Meta-Dataset has them."""
        opened: OrderedDict[str, NDArray[Any]] = OrderedDict()
        for item in items:
            if item.file not in opened:
                opened[item.file] = _rows(self.root / item.file)
                if len(opened) > OPEN_FILES:
                    opened.popitem(last=False)
            row = opened[item.file][item.offset].reshape(SIDE, SIDE)
            yield row * np.uint8(WHITE) if row.dtype == np.bool_ else np.array(row)


def _about(files: dict[str, Path]) -> tuple[SourceFile, ...]:
    return tuple(SourceFile(name=path.name, bytes=path.stat().st_size) for path in files.values())


def _rows(path: Path) -> NDArray[Any]:
    """The array of a class, mapped; anything but rows of pixels is refused, objects above all."""
    try:
        rows: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # refuses objects
    except (ValueError, EOFError) as error:
        raise IntegrityError(f"{path} is no array, or cut off ({error}); copy it again") from error
    if rows.dtype not in (np.uint8, np.bool_) or math.prod(rows.shape[1:]) != PIXELS:
        raise IntegrityError(
            f"{path} should hold rows of {PIXELS} bytes and holds {rows.dtype} {rows.shape}; "
            "download it from numpy_bitmap"
        )
    return rows


def spread(count: int, limit: int | None) -> Sequence[int]:
    """All positions, or as many as the limit allows, evenly from the first to the last.

    >>> spread(10, 4)
    [0, 2, 5, 7]
    """
    if limit is None or count <= limit:
        return range(count)
    return [place * count // limit for place in range(limit)]


@dataclass(frozen=True, kw_only=True)
class Mnist(RawSource):
    """MNIST's test files: ten classes that LITE adds to the training side."""

    name: str = "mnist"
    parts = DOWNLOADS["mnist"]

    def listing(self) -> Listing:
        """Two IDX files, as published (gzip) or inflated."""
        images, labels = (located(part, self.root) for part in self.parts)
        assert images is not None  # `found` holds
        assert labels is not None
        plain, file = self._plain(images)
        start, count = _idx_places(plain, images)
        digits = _idx_labels(labels)
        if len(digits) != count:
            raise IntegrityError(
                f"{images} holds {count:,} pictures and {labels} {len(digits):,} labels; they do not "
                "belong together, download both again"
            )
        pictures: dict[str, list[Picture]] = {}
        for number, digit in enumerate(digits):
            span = Span(file, start + number * PIXELS, PIXELS)
            pictures.setdefault(f"class_{digit}", []).append(Picture(f"{number:05d}", span))
        return Listing(
            pictures=pictures,
            where=str(images),
            files=_about({"images": images, "labels": labels}),
        )

    def _plain(self, path: Path) -> tuple[Path, str]:
        if not _is_gzip(path):
            return path, path.relative_to(self.root).as_posix()
        if self.scratch is None:
            raise UsageError(
                f"{path} is compressed and there is no scratch folder to inflate it into"
            )
        return inflated(path, self.scratch)

    def pictures(self, items: Sequence[Item]) -> Iterator[Pixels | Rejected]:
        """White on black."""
        for data in super().pictures(items):
            if isinstance(data, bytes):
                yield np.frombuffer(data, np.uint8).reshape(SIDE, SIDE)
            else:
                yield data


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _idx_places(plain: Path, path: Path) -> tuple[int, int]:
    """Where the first picture of an IDX file starts, and how many there are."""
    header = struct.Struct(">2x2B3I")  # zeros, type (8: byte), dimensions, their sizes
    with plain.open("rb") as file:
        data = file.read(header.size)
    kind = header.unpack(data) if len(data) == header.size else ()
    if kind[:2] != (8, 3) or kind[3:] != (SIDE, SIDE):
        raise IntegrityError(
            f"{path} does not hold {SIDE} x {SIDE} pixels in IDX; download it again"
        )
    count = kind[2]
    if (size := plain.stat().st_size) != header.size + count * PIXELS:
        raise IntegrityError(
            f"{path} should hold {count:,} pictures, {header.size + count * PIXELS:,} bytes, and holds "
            f"{size:,}; download it again"
        )
    return header.size, count


def _idx_labels(path: Path) -> bytes:
    """One byte for each label."""
    header = struct.Struct(">2x2BI")
    try:
        data = gzip.decompress(path.read_bytes()) if _is_gzip(path) else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise IntegrityError(
            f"{path} is cut off or damaged ({error}); download it again"
        ) from error
    start = header.unpack(data[: header.size]) if len(data) >= header.size else ()
    if start[:2] != (8, 1) or start[2] != len(data) - header.size:
        raise IntegrityError(f"{path} does not hold labels in IDX; download it again")
    return data[header.size :]
