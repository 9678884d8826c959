"""Image files written byte by byte: JPEG segments, PNG chunks, TIFF directories, as no library writes them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Final, TypeAlias

from PIL import Image

TiffTag: TypeAlias = "tuple[int, int, Sequence[int]]"
"""Tag, type and values."""
PNG_START: Final = b"\x89PNG\r\n\x1a\n"
PIXELS_AT: Final = 8
"""Where the pixels of a `tiff_file` lie."""


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file of this format."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg_segment(marker: int, body: bytes) -> bytes:
    """A marker, the length and the body."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """The JPEG with these right behind its start."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def exif_bomb(headers: int, jpeg: bytes) -> bytes:
    """The JPEG with EXIF that is made of repeated headers, which a careless reader strips one by one."""
    body, most = b"Exif\0\0" * headers, 60_000
    pieces = (body[at : at + most] for at in range(0, len(body), most))
    return with_segments(jpeg, *(jpeg_segment(0xE1, b"Exif\0\0" + one) for one in pieces))


def many_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG with so many scans that say nothing new: each goes over all pixels."""
    data = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk with its checksum."""
    return struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(header: Sequence[int], rows: bytes, *before: bytes) -> bytes:
    """A PNG of (width, height, bits, colours, interlaced) and deflated rows, with chunks before the rows."""
    width, height, bits, colours, interlaced = header
    head = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced)
    chunks = (png_chunk(b"IHDR", head), *before, png_chunk(b"IDAT", rows), png_chunk(b"IEND", b""))
    return PNG_START + b"".join(chunks)


def deflated_zeros(count: int) -> bytes:
    """So many zeros, deflated, without holding them."""
    deflate = zlib.compressobj(1)
    block = bytes(1 << 20)
    whole = (deflate.compress(block[: min(len(block), count - at)]) for at in range(0, count, len(block)))
    return b"".join((*whole, deflate.flush()))


def tiff_file(tags: Sequence[TiffTag], pixels: bytes, order: str = "<") -> bytes:
    """A TIFF with these tags in this order."""
    codes = {1: "B", 3: "H", 4: "L"}
    start = PIXELS_AT + len(pixels) + len(pixels) % 2
    entries, behind = [], b""
    for tag, kind, values in tags:
        packed = struct.pack(f"{order}{len(values)}{codes[kind]}", *values)
        if len(packed) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(behind)
            behind += packed
            packed = struct.pack(f"{order}L", place)
        entries.append(struct.pack(f"{order}HHL", tag, kind, len(values)) + packed.ljust(4, b"\0"))
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", start)
    body = head + pixels + bytes(len(pixels) % 2)
    return body + struct.pack(f"{order}H", len(tags)) + b"".join(entries) + bytes(4) + behind


def rgb_tags(width: int, height: int, compression: int = 1) -> list[TiffTag]:
    """The tags of an RGB image of eight bits, but for those of strips or tiles."""
    return [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [8, 8, 8]), (259, 3, [compression]), (262, 3, [2]),
        (277, 3, [3]), (284, 3, [1]),
    ]  # fmt: skip


def overread_tiff(side: int = 64) -> bytes:
    """A TIFF with SamplesPerPixel twice: libtiff believes the first, Pillow before 13 the second."""
    tile = zlib.compress(bytes([7]) * (side * side))
    return tiff_file(
        [(256, 4, [side]), (257, 4, [side]), (258, 3, [8]), (259, 3, [8]), (262, 3, [2]), (277, 3, [1]),
         (277, 3, [3]), (284, 3, [1]), (322, 4, [side]), (323, 4, [side]), (324, 4, [PIXELS_AT]),
         (325, 4, [len(tile)])],
        tile,
    )  # fmt: skip


def shared_values_tiff(tags: int, size: int) -> bytes:
    """A TIFF with so many tags that all have the same bytes as their value: together more than the memory."""
    start = PIXELS_AT + size
    entries = b"".join(struct.pack("<HHLL", 1000 + tag, 1, size, PIXELS_AT) for tag in range(tags))
    width = struct.pack("<HHLL", 256, 4, 1, 9)
    return b"II*\0" + struct.pack("<L", start) + bytes(size) + struct.pack("<H", tags + 1) + width + entries
