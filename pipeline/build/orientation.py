"""Read how an image has to be turned, from EXIF or XMP, in bounded time.

Pillow's own reader is not used: repeated headers cost it quadratic time, and it reads every tag of every
directory. Here one directory is read once, and of it one entry.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from PIL import Image

UPRIGHT: Final = 1
ORIENTATION_TAG: Final = 0x0112
EXIF_PREFIX: Final = b"Exif\0\0"
XMP_ORIENTATION: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
BYTE_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
EXIF_INTEGERS: Final = {3: "H", 4: "L", 8: "h", 9: "l"}  # TIFF's field types, as `struct` calls them
EXIF_ENTRY: Final = 12  # bytes
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is to be seen; an unknown orientation changes nothing."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def read_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation that EXIF gives, or XMP where EXIF has none; `UPRIGHT` without either."""
    orientation = _exif_orientation(exif)
    if orientation is None and (found := XMP_ORIENTATION.search(xmp)):
        orientation = int(found[1])
    return UPRIGHT if orientation is None else orientation


def _exif_orientation(exif: bytes) -> int | None:
    """The orientation in the first directory of EXIF data; of two entries the last one counts."""
    start = 0
    while exif.startswith(EXIF_PREFIX, start):
        start += len(EXIF_PREFIX)
    tiff = memoryview(exif)[start:]
    order = BYTE_ORDERS.get(bytes(tiff[:4]))
    if order is None:
        return None
    orientation = None
    try:
        (directory,) = struct.unpack_from(f"{order}L", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for at in range(directory + 2, directory + 2 + entries * EXIF_ENTRY, EXIF_ENTRY):
            tag, kind, count = struct.unpack_from(f"{order}HHL", tiff, at)
            if tag == ORIENTATION_TAG and kind in EXIF_INTEGERS and count:
                orientation = _first_value(tiff, at + 8, f"{order}{EXIF_INTEGERS[kind]}", count)
    except struct.error:  # the data ends early: what was read before counts
        pass
    return orientation


def _first_value(tiff: memoryview, at: int, code: str, count: int) -> int:
    """The first value of an entry; values of more than four bytes lie elsewhere."""
    if count * struct.calcsize(code) > struct.calcsize("<L"):
        (at,) = struct.unpack_from(f"{code[0]}L", tiff, at)
    return int(struct.unpack_from(code, tiff, at)[0])
