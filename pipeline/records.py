"""The frozen records that travel between the stages, in travel order.

source ─ Survey(classes, Item | Rejected ...) ─► plan ─ Item + Pixels ─► images ─ Encoded ─► writer
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from pipeline.constants import BOX_FRAME, ENCODINGS, JPEG_BEST, JPEG_QUALITY, SIZES
from pipeline.errors import UsageError

Split: TypeAlias = Literal["train", "validation", "test", ""]
"""Which side of the benchmark a class or a sample is on; "" where the source does not say."""

FULL_COLOUR: Final = ":444"
SPLITS: Final[tuple[Split, ...]] = get_args(Split)
"""In the order in which people expect them; the last is none."""

Box: TypeAlias = tuple[int, int, int, int]
"""Left, upper, width, height."""

Pixels: TypeAlias = "bytes | NDArray[np.uint8]"
"""What a source hands over for one item: an encoded picture, or H x W (grey) or H x W x 3 pixels."""


class Item(NamedTuple):
    """One picture that a source offers, before anything was decoded.

    A tuple and not a dataclass: a listing has millions, and a tuple is made three times faster.
    """

    name: str
    """Unique in the dataset and meaningful to a person: the path in the archive, the video and frame."""
    class_id: int
    """Position in `Survey.classes`."""
    split: Split = ""
    file: str = ""
    """The file that holds the bytes, relative to the source's root (or absolute)."""
    offset: int = 0
    """Bytes (frames for a video, rows for an array) before the picture."""
    length: int = -1
    """Bytes of the picture; -1 for all up to the end of the file."""
    packing: Literal["plain", "zip"] = "plain"
    """zip: `offset` is that of the member's local header and the bytes are checked by its crc32."""
    crop: tuple[int, int, int, int] | None = None
    """Left, upper, right, lower in source pixels; applied after decoding."""
    invert: bool = False
    """Black on white becomes white on black."""
    group: str = ""
    """Pictures that belong together: the video, the track."""
    user: str = ""
    kind: str = ""
    """ORBIT: clean or clutter."""
    frame: int = -1
    """Number within the group or split, as the source counts."""
    quality: tuple[int, ...] = ()
    """One of -1 (not annotated), 0, 1 for each name in `constants.QUALITY`; () means all -1."""
    box: Box | None = None
    """Annotated object, in a frame of `constants.BOX_FRAME` pixels whatever the stored frame's size."""
    split_lite: Split = ""
    """VTAB only: the split under the LITE paper's convention (`split` is the official one's)."""


def rescaled_box(box: Box, size: int) -> Box:
    """The box in a picture of `size` pixels, as ORBIT's own loader rounds and clamps it.

    >>> rescaled_box((540, 0, 1080, 3), 84)
    (42, 0, 84, 1)
    """
    left, upper, width, height = (int(value / BOX_FRAME * size) for value in box)
    corner = (min(max(left, 0), size - 1), min(max(upper, 0), size - 1))
    return (*corner, min(max(width, 1), size), min(max(height, 1), size))


class Rejected(NamedTuple):
    """A picture that cannot be built, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRecord:
    """One class; its id is its position."""

    name: str
    split: Split = ""
    """The split of all of its pictures, "" where pictures are split one by one."""
    superclass: str = ""
    """Omniglot: the alphabet. ORBIT: the user."""
    words: str = ""
    """A name for people where `name` is a code (WordNet ids)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """A file that a survey read, as the manifest remembers it."""

    name: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a source holds. Items come lazily, in an order that depends on the files' contents alone."""

    classes: tuple[ClassRecord, ...]
    items: Iterable[Item | Rejected]
    files: tuple[SourceFile, ...] = ()
    """The containers read (archives, lists); a folder of pictures has none."""
    hierarchy: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    """ImageNet: for each split, a WordNet id and its children within that split's graph."""
    ordered: bool = False
    """True: keep this order within a class (frames of a video). False: the plan shuffles within a class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoding:
    """How a picture of one size is stored."""

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
        """`jpeg:95`, `jpeg:95:444`, `png` or `raw`."""
        found = re.fullmatch(r"(jpeg)(?::(\d+))?(:444)?|(png|raw)", text)
        if found is None:
            raise UsageError(
                f"an encoding is jpeg:QUALITY, jpeg:QUALITY:444, png or raw, got {text!r}"
            )
        _, quality, full_colour, plain = found.groups()
        if plain:
            return cls(format=plain)  # type: ignore[arg-type]
        return cls(
            format="jpeg", quality=int(quality or JPEG_QUALITY), full_colour=full_colour is not None
        )


Shape: TypeAlias = Literal["squash", "crop"]
Filter: TypeAlias = Literal["lanczos", "bicubic", "bilinear"]


class Resizing(NamedTuple):
    """How pictures of any shape become squares."""

    shape: Shape = "squash"
    """squash: to a square whatever the shape, as the papers do. crop: the centre square first."""
    filter: Filter = "lanczos"

    def __str__(self) -> str:
        shapes = {"squash": "squashed to a square", "crop": "the centre square"}
        return f"{shapes[self.shape]}, {self.filter} filter"


SQUASHED: Final = Resizing()
"""What a build does unless it is told otherwise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything besides the source that decides the bytes of the shards."""

    sizes: tuple[int, ...] = SIZES
    encodings: tuple[Encoding, ...] = ()
    """One for each size; by default `constants.ENCODINGS`, JPEG for other sizes."""
    resize: Shape = SQUASHED.shape
    filter: Filter = SQUASHED.filter
    order: Literal["class", "shuffled"] = "class"
    seed: int = 0
    shard_samples: int = 0
    """Samples in a shard; 0: as many as suit the dataset."""
    limit_per_class: int | None = None

    def __post_init__(self) -> None:
        if not self.sizes or len(set(self.sizes)) < len(self.sizes) or min(self.sizes) < 1:
            raise UsageError(f"sizes are different positive numbers of pixels, got {self.sizes}")
        if not self.encodings:
            chosen = (ENCODINGS.get(size, f"jpeg:{JPEG_QUALITY}") for size in self.sizes)
            object.__setattr__(self, "encodings", tuple(map(Encoding.parse, chosen)))
        if len(self.encodings) != len(self.sizes):
            raise UsageError(
                f"{len(self.sizes)} sizes need as many encodings, got {self.encodings}"
            )
        if self.shard_samples < 0:
            raise UsageError(f"--shard-samples starts at 1, got {self.shard_samples}")
        if self.limit_per_class is not None and self.limit_per_class < 1:
            raise UsageError(f"--limit-per-class starts at 1, got {self.limit_per_class}")

    @property
    def resizing(self) -> Resizing:
        return Resizing(self.resize, self.filter)

    def described(self) -> dict[str, object]:
        """For the manifest and the plan's hash: plain values under stable names."""
        encodings = {str(s): str(e) for s, e in zip(self.sizes, self.encodings, strict=True)}
        return asdict(self) | {"sizes": list(self.sizes), "encodings": encodings}

    @classmethod
    def from_described(cls, values: Mapping[str, Any]) -> Recipe:
        """The inverse of `described`."""
        sizes = tuple(values["sizes"])
        encodings = tuple(Encoding.parse(values["encodings"][str(size)]) for size in sizes)
        return cls(**{**values, "sizes": sizes, "encodings": encodings})


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFile:
    """One finished tar, as the manifest remembers it."""

    name: str
    samples: int
    bytes: int
    sha256: str
    index_sha256: str
    """Of the .idx beside it."""
