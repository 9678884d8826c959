"""Write the directory of a TIFF anew, with the tags that its pixels need and nothing else.

Pillow and libtiff each read a file's directory. Where they understand it differently (a tag that is there
twice, a value of an odd type), memory that is not the image's becomes pixels; and the values of many tags may
lie in the same bytes and together fill the memory. So neither sees the file's own directory: this module
reads it, strictly, and appends one that can be read in one way only.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from pipeline.build.orientation import ORIENTATION_TAG
from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import IntegrityError

TIFF_LAYOUTS: Final = {b"II*\0": "<HHL", b"MM\0*": ">HHL", b"II+\0": "<HHQ", b"MM\0+": ">HHQ"}
"""Byte order, and how `struct` calls an entry's tag, type and count: in a TIFF, and in a BigTIFF."""
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
FILL_ORDER, PREDICTOR, PALETTE, EXTRA_SAMPLES, SAMPLE_FORMAT, XMP_TAG = 266, 317, 320, 338, 339, 700
SHORT_TAGS: Final = frozenset(
    {BITS, COMPRESSION, PHOTOMETRIC, SAMPLES, PLANAR, FILL_ORDER, PREDICTOR, PALETTE, EXTRA_SAMPLES}
    | {SAMPLE_FORMAT}
)
"""Written as 16 bits, all others as 32."""
LISTED_TAGS: Final = frozenset(
    {BITS, STRIP_OFFSETS, STRIP_BYTES, PALETTE, TILE_OFFSETS, TILE_BYTES, EXTRA_SAMPLES, SAMPLE_FORMAT}
)
"""These have several values, the other tags one."""
KEPT_TAGS: Final = (
    SHORT_TAGS | LISTED_TAGS | {WIDTH, LENGTH, ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH, ORIENTATION_TAG}
)
COMPRESSIONS: Final = (1, 5, 8, 32773, 32946)
"""None, LZW, Deflate, PackBits, Deflate's old number. Not JPEG and fax: before Pillow 13, what a strip that
ends early leaves out is filled with what lay in memory."""
PHOTOMETRICS: Final = (0, 1, 2, 3, 5)  # grey (0 and 1), RGB, palette, CMYK
DEPTHS: Final = (1, 2, 4, 8, 16, 32)  # bits of a value
ONE_PLANE, SEPARATE_PLANES = 1, 2  # whether a pixel's values lie side by side
MOST_SAMPLES: Final = 6  # values of a pixel: CMYK and two more are the most that Pillow reads
READABLE: Final = (
    (COMPRESSION, 1, COMPRESSIONS, "compression"),
    (PHOTOMETRIC, 0, PHOTOMETRICS, "colour space"),
    (SAMPLES, 1, range(1, MOST_SAMPLES + 1), "values of a pixel"),
    (PLANAR, ONE_PLANE, (ONE_PLANE, SEPARATE_PLANES), "planes"),
)
"""Tags, what stands for them where they are missing, what is read, and their names."""
MOST_TAGS: Final = 4096  # scientific formats write some hundreds
MOST_VALUES: Final = 1 << 20  # of one tag: strips of one row in the longest image are 65,535
INTEGER_TYPES: Final = {1: "B", 3: "H", 4: "L", 16: "Q"}  # unsigned, as `struct` calls them
BYTE_TYPES: Final = (1, 7)
SHORT_TYPE, LONG_TYPE = 3, 4


class TiffEntry(NamedTuple):
    """One entry of a directory: the type and number of its values, and their place in the file."""

    kind: int
    values: int
    at: int


class TiffDirectory(NamedTuple):
    """The first directory of a TIFF, as far as it is needed."""

    order: str
    """`<` or `>`."""
    tags: Mapping[int, Sequence[int]]
    xmp: bytes


class RewrittenTiff(NamedTuple):
    """A TIFF that Pillow and libtiff read alike, and what else its directory said."""

    data: bytes
    orientation: int | None
    xmp: bytes


def rewrite_tiff(data: bytes) -> RewrittenTiff:
    """Give a TIFF a directory of its own. Raises IntegrityError."""
    try:
        found = _read_directory(data)
        start = len(data) + len(data) % 2
        packed = _pack_directory(found.order, _checked_tags(found.tags), start)
    except (struct.error, OverflowError):
        raise IntegrityError("a TIFF whose directory is cut off or holds values out of range") from None
    head = data[:2] + struct.pack(f"{found.order}HL", 42, start)
    orientation = found.tags.get(ORIENTATION_TAG)
    rewritten = b"".join((head, data[len(head) :], bytes(start - len(data)), packed))
    return RewrittenTiff(rewritten, orientation[0] if orientation else None, found.xmp)


def _read_directory(data: bytes) -> TiffDirectory:
    entries = _read_entries(data)
    order = TIFF_LAYOUTS[data[:4]][0]
    tags = {tag: _read_values(data, order, tag, entries[tag]) for tag in sorted(KEPT_TAGS & entries.keys())}
    xmp = entries.get(XMP_TAG)
    text = data[xmp.at : xmp.at + xmp.values] if xmp is not None and xmp.kind in BYTE_TYPES else b""
    return TiffDirectory(order, tags, text)


def _read_entries(data: bytes) -> dict[int, TiffEntry]:
    """The entries of the first directory by tag; a tag that is there twice is an error."""
    entry = struct.Struct(TIFF_LAYOUTS[data[:4]])
    order, word = entry.format[0], entry.format[-1]
    field = struct.calcsize(f"{order}{word}")  # bytes: values of no more lie in the entry
    number = "Q" if word == "Q" else "H"
    (start,) = struct.unpack_from(f"{order}{word}", data, field)
    (count,) = struct.unpack_from(f"{order}{number}", data, start)
    if count > MOST_TAGS:
        raise IntegrityError(f"a TIFF with {count:,} tags, and at most {MOST_TAGS:,} are read")
    entries: dict[int, TiffEntry] = {}
    for index in range(count):
        at = start + struct.calcsize(f"{order}{number}") + index * (entry.size + field)
        tag, kind, values = entry.unpack_from(data, at)
        if tag in entries:
            raise IntegrityError(f"a TIFF that has tag {tag} twice")
        at += entry.size
        if values * struct.calcsize(f"<{INTEGER_TYPES.get(kind, 'B')}") > field:
            (at,) = struct.unpack_from(f"{order}{word}", data, at)
        entries[tag] = TiffEntry(kind, values, at)
    return entries


def _read_values(data: bytes, order: str, tag: int, entry: TiffEntry) -> Sequence[int]:
    most = MOST_VALUES if tag in LISTED_TAGS else 1
    if entry.kind not in INTEGER_TYPES or not 1 <= entry.values <= most:
        raise IntegrityError(f"a TIFF whose tag {tag} has {entry.values:,} values of type {entry.kind}")
    return struct.unpack_from(f"{order}{entry.values}{INTEGER_TYPES[entry.kind]}", data, entry.at)


def _checked_tags(tags: Mapping[int, Sequence[int]]) -> dict[int, Sequence[int]]:
    """The tags to write: all that a reader would otherwise assume is said. Raises IntegrityError."""
    if WIDTH not in tags or LENGTH not in tags:
        raise IntegrityError("a TIFF that does not say how large it is")
    checked = {tag: values for tag, values in tags.items() if tag != ORIENTATION_TAG}
    for tag, usual, known, name in READABLE:
        checked[tag] = values = tags.get(tag, (usual,))
        if values[0] not in known:
            raise IntegrityError(
                f"a TIFF of {name} {values[0]}, and {', '.join(map(str, known))} are read; save it as PNG"
            )
    checked[BITS] = _checked_bits(tags.get(BITS, (1,)), checked[SAMPLES][0])
    return checked | _checked_blocks(checked)


def _checked_bits(bits: Sequence[int], samples: int) -> Sequence[int]:
    """The depth of each value of a pixel; one depth stands for all of them."""
    bits = tuple(bits[:samples]) if len(bits) > 1 else (bits[0],) * samples
    if len(bits) != samples or len(set(bits)) > 1 or bits[0] not in DEPTHS:
        raise IntegrityError(f"a TIFF of {samples} values with {', '.join(map(str, bits))} bits")
    return bits


def _checked_blocks(tags: Mapping[int, Sequence[int]]) -> dict[int, Sequence[int]]:
    """The tags of strips or of tiles, exactly as many as cover the image."""
    width, length = tags[WIDTH][0], tags[LENGTH][0]
    tiled = TILE_OFFSETS in tags
    if tiled == (STRIP_OFFSETS in tags) or tiled != (TILE_WIDTH in tags and TILE_LENGTH in tags):
        raise IntegrityError("a TIFF that has both strips and tiles, or neither")
    across, down = (tags[TILE_WIDTH][0], tags[TILE_LENGTH][0]) if tiled else (width, length)
    if not tiled and ROWS_PER_STRIP in tags:
        down = min(tags[ROWS_PER_STRIP][0], length)
    if not 1 <= across * down <= PIXEL_LIMIT:
        raise IntegrityError(f"a TIFF in pieces of {across:,} x {down:,} pixels (most: {PIXEL_LIMIT:,})")
    planes = tags[SAMPLES][0] if tags[PLANAR][0] == SEPARATE_PLANES else 1
    blocks = -(-width // across) * -(-length // down) * planes
    offsets, sizes = (TILE_OFFSETS, TILE_BYTES) if tiled else (STRIP_OFFSETS, STRIP_BYTES)
    needed = (offsets,) if tags[COMPRESSION][0] == 1 else (offsets, sizes)
    if any(len(tags.get(tag, ())) < blocks for tag in needed):
        raise IntegrityError(f"a TIFF that does not say where its {blocks:,} pieces lie")
    kept = {tag: tags[tag][:blocks] for tag in (offsets, sizes) if tag in tags}
    return kept if tiled else {**kept, ROWS_PER_STRIP: (down,)}


def _pack_directory(order: str, tags: Mapping[int, Sequence[int]], start: int) -> bytes:
    """The bytes of a directory at `start`, and behind it the values that do not fit into it."""
    entries, values = [struct.pack(f"{order}H", len(tags))], bytearray()
    behind = start + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        kind = SHORT_TYPE if tag in SHORT_TAGS else LONG_TYPE
        packed = struct.pack(f"{order}{len(tags[tag])}{INTEGER_TYPES[kind]}", *tags[tag])
        entries.append(struct.pack(f"{order}HHL", tag, kind, len(tags[tag])))
        if len(packed) <= struct.calcsize("<L"):
            entries.append(packed.ljust(4, b"\0"))
        else:
            entries.append(struct.pack(f"{order}L", behind + len(values)))
            values += packed + bytes(len(packed) % 2)
    return b"".join((*entries, bytes(4), values))
