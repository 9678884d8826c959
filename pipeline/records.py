"""The frozen records that pass between the stages of a build, in the order in which they pass.

source ─ Survey(classes, Item | Rejected ...) ─► plan ─ Item + Pixels ─► images ─ bytes ─► writer
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isqrt
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.constants import (
    BOX_FRAME,
    DEFAULT_ENCODINGS,
    DEFAULT_SIZES,
    JPEG_BEST,
    JPEG_QUALITY,
    PIXEL_LIMIT,
)
from pipeline.errors import IntegrityError, UsageError
from pipeline.settings import setting, typed

Split: TypeAlias = Literal["train", "validation", "test", ""]
"""The split of a class or a sample in its benchmark; "" where the source does not say."""

FOREIGN_BYTE: Final = re.compile("[\udc80-\udcff]")  # how Python holds a byte of a name that is no UTF-8
FULL_COLOUR: Final = ":444"
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
"""In the order in which people expect them; the last one means "no split"."""

Box: TypeAlias = tuple[int, int, int, int]
"""Left, upper, width, height."""

Pixels: TypeAlias = "bytes | NDArray[np.uint8]"
"""The image of one item as a source gives it: encoded, or H x W (grey) or H x W x 3 pixels."""


def printable_text(text: str) -> str:
    r"""The text with what is no UTF-8 in it as escapes, so that it can be written to any file.

    >>> printable_text("caf" + chr(0xDCE9) + ".png")
    'caf\\xe9.png'
    """
    if text.isascii():
        return text
    escaped = FOREIGN_BYTE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


class Item(NamedTuple):
    """One image that a source lists, before anything is decoded.

    A tuple and not a dataclass: a listing has millions, and creating a tuple is three times faster.
    """

    name: str
    """Unique in the dataset and meaningful to a person: the path in the archive, the video and frame."""
    class_id: int
    """Position in `Survey.classes`."""
    split: Split = ""
    file: str = ""
    """The file that holds the bytes, relative to the source's root (or absolute)."""
    offset: int = 0
    """Bytes (frames for a video, rows for an array) before the image."""
    length: int = -1
    """Bytes of the image; -1 for all up to the end of the file."""
    packing: Literal["plain", "whole", "zip"] = "plain"
    """whole: a file that had `length` bytes when it was listed, and must still have them when it is read.
    zip: `offset` is that of the member's local header, and its crc32 is checked."""
    crop: tuple[int, int, int, int] | None = None
    """Left, upper, right, lower in source pixels; applied after decoding."""
    invert: bool = False
    """Black on white becomes white on black."""
    group: str = ""
    """The video, the track: what images that belong together have in common."""
    user: str = ""
    kind: str = ""
    """ORBIT: clean or clutter."""
    frame: int = -1
    """Number within the group or split, as the source counts."""
    quality: tuple[int, ...] = ()
    """-1 (not annotated), 0 or 1 for each name in `constants.QUALITY_ISSUES`; () means all -1."""
    box: Box | None = None
    """The annotated object, in a frame of `constants.BOX_FRAME` pixels whatever the image's size."""
    split_lite: Split = ""
    """VTAB only: the split under the LITE paper's convention (`split` is the official one's)."""


def rescale_box(box: Box, size: int) -> Box:
    """The box in an image of `size` pixels, as ORBIT's own loader rounds and clamps it.

    >>> rescale_box((540, 0, 1080, 3), 84)
    (42, 0, 84, 1)
    """
    left, upper, width, height = (int(value / BOX_FRAME * size) for value in box)
    corner = (min(max(left, 0), size - 1), min(max(upper, 0), size - 1))
    return (*corner, min(max(width, 1), size), min(max(height, 1), size))


class Rejected(NamedTuple):
    """An image that cannot be built, and why."""

    name: str
    reason: str

    def printable(self) -> Rejected:
        """The same, as it can be written to any file."""
        return Rejected(printable_text(self.name), printable_text(self.reason))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRecord:
    """One class; its id is its position."""

    name: str
    split: Split = ""
    """The split of all of its images; "" where images are split one by one."""
    superclass: str = ""
    """Omniglot: the alphabet. ORBIT: the user."""
    words: str = ""
    """A readable name where `name` is a code (WordNet ids)."""

    def printable(self) -> ClassRecord:
        """The same, as it can be written to any file."""
        name, superclass, words = map(printable_text, (self.name, self.superclass, self.words))
        return replace(self, name=name, superclass=superclass, words=words)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file that a survey read, as the manifest records it."""

    name: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """The contents of a source. Items are listed lazily, in an order that the files alone decide."""

    classes: tuple[ClassRecord, ...]
    items: Iterable[Item | Rejected]
    files: tuple[SourceFile, ...] = ()
    """The containers read (archives, lists); a folder of images has none."""
    hierarchy: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """ImageNet: for each split, a WordNet id and its children within that split's graph."""
    ordered: bool = False
    """True: keep this order within a class (frames of a video). False: the plan shuffles within a class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How images of one size are stored."""

    format: Literal["jpeg", "png", "raw"]
    quality: int = 0
    """JPEG only, 1 to 100."""
    full_colour: bool = False
    """JPEG only: colour at full resolution (4:4:4): a third more bytes, 4 to 5 dB closer."""

    def __post_init__(self) -> None:
        if self.format == "jpeg" and not 1 <= self.quality <= JPEG_BEST:
            raise UsageError(f"a JPEG quality is 1 to {JPEG_BEST}, got {self.quality}")

    @property
    def extension(self) -> str:
        """The member's name in the tar."""
        return {"jpeg": "jpg", "png": "png", "raw": "npy"}[self.format]

    def __str__(self) -> str:
        jpeg = f"jpeg:{self.quality}{FULL_COLOUR if self.full_colour else ''}"
        return jpeg if self.format == "jpeg" else self.format

    @classmethod
    def parse(cls, text: str) -> Encoding:
        """Read `jpeg:95`, `jpeg:95:444`, `png` or `raw`."""
        match = re.fullmatch(r"(jpeg)(?::(\d+))?(:444)?|(png|raw)", text)
        if match is None:
            raise UsageError(f"an encoding is jpeg:QUALITY, jpeg:QUALITY:444, png or raw, got {text!r}")
        _, quality, full_colour, plain = match.groups()
        if plain:
            return cls(format=plain)  # type: ignore[arg-type]
        return cls(format="jpeg", quality=int(quality or JPEG_QUALITY), full_colour=full_colour is not None)


ResizeShape: TypeAlias = Literal["squash", "crop"]
ResizeFilter: TypeAlias = Literal["lanczos", "bicubic", "bilinear"]


class ResizeMethod(NamedTuple):
    """How images of any shape become squares."""

    shape: ResizeShape = "squash"
    """squash: the whole image becomes a square, as in the papers. crop: only its centre square."""
    filter: ResizeFilter = "lanczos"

    def __str__(self) -> str:
        shapes = {"squash": "squashed to a square", "crop": "the centre square"}
        return f"{shapes[self.shape]}, {self.filter} filter"


DEFAULT_RESIZE: Final = ResizeMethod()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """The settings that, with the source, decide every byte of the shards."""

    sizes: tuple[int, ...] = setting(DEFAULT_SIZES, "sides in pixels", metavar="PX")
    encodings: tuple[Encoding, ...] = ()
    """One for each size; by default `constants.DEFAULT_ENCODINGS`, JPEG for other sizes."""
    resize: ResizeShape = setting(DEFAULT_RESIZE.shape, "the whole image into a square, or its centre square")
    filter: ResizeFilter = setting(DEFAULT_RESIZE.filter, "how images are made smaller")
    order: Literal["class", "shuffled"] = setting(
        "class", "class: for episodes; shuffled: for plain streaming"
    )
    seed: int = setting(0, "of the order", metavar="SEED")
    shard_samples: int = setting(0, "images in a shard (as suits the dataset)", metavar="N")
    limit_per_class: int | None = None
    """At most so many images of a class."""

    def __post_init__(self) -> None:
        if not self.sizes or len(set(self.sizes)) < len(self.sizes) or min(self.sizes) < 1:
            raise UsageError(f"sizes are different positive numbers of pixels, got {self.sizes}")
        if max(self.sizes) ** 2 > PIXEL_LIMIT:
            raise UsageError(f"a size is up to {isqrt(PIXEL_LIMIT):,} pixels, got {max(self.sizes):,}")
        if not self.encodings:
            chosen = (DEFAULT_ENCODINGS.get(size, f"jpeg:{JPEG_QUALITY}") for size in self.sizes)
            object.__setattr__(self, "encodings", tuple(map(Encoding.parse, chosen)))
        if len(self.encodings) != len(self.sizes):
            raise UsageError(f"{len(self.sizes)} sizes need as many encodings, got {self.encodings}")
        if self.shard_samples < 0:
            raise UsageError(f"--shard-samples starts at 1, got {self.shard_samples}")
        if self.limit_per_class is not None and self.limit_per_class < 1:
            raise UsageError(f"--limit-per-class starts at 1, got {self.limit_per_class}")

    @property
    def resizing(self) -> ResizeMethod:
        return ResizeMethod(self.resize, self.filter)

    def described(self) -> dict[str, object]:
        """The recipe as plain values under stable names, for the manifest and the plan's hash."""
        encodings = {str(s): str(e) for s, e in zip(self.sizes, self.encodings, strict=True)}
        return asdict(self) | {"sizes": list(self.sizes), "encodings": encodings}

    @classmethod
    def from_described(cls, values: object, where: str) -> Recipe:
        """The inverse of `described`; IntegrityError names a wrong field of `where`, a file."""
        values = typed(values, dict[str, Any], where)
        sizes = typed(values.get("sizes"), tuple[int, ...], f"{where}, sizes")
        texts = typed(values.get("encodings"), dict[str, str], f"{where}, encodings")
        try:
            encodings = tuple(Encoding.parse(texts.get(str(size), "")) for size in sizes)
        except UsageError as error:
            raise IntegrityError(f"{where}, encodings: {error}") from error
        return typed({**values, "encodings": encodings}, cls, where)


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFile:
    """One finished tar, as the manifest records it."""

    name: str
    samples: int
    bytes: int
    sha256: str
    index_sha256: str
    """Of the .idx beside it."""
