"""Reduce an image file to what its pixels need, before a decoder sees it.

Comments, profiles, previews and further frames are where decoders had most of their holes, and no shard needs
them. Of EXIF and XMP only the orientation is read, by `orientation`. All work is one pass over the file.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from pipeline.build.orientation import EXIF_PREFIX, UPRIGHT, read_orientation
from pipeline.build.tiff_files import TIFF_LAYOUTS, rewrite_tiff
from pipeline.errors import IntegrityError

JPEG_SIGNATURE: Final = b"\xff\xd8\xff"
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
PPM_SIGNATURE: Final = re.compile(rb"P[1-6f]\s")
JPEG_MARKER: Final = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
JPEG_LONE_MARKERS: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # without a length
JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
JPEG_SCAN: Final = 0xDA
JPEG_SCAN_MARKER: Final = b"\xff\xda"
JPEG_END: Final = b"\xd9"
JPEG_NOTE: Final = 0xE1  # EXIF or XMP
FRAME_HEAD: Final = struct.Struct(">BHHB")  # bits of a value, height, width, colours
JPEG_DROPPED: Final = frozenset({*range(0xE1, 0xF0), 0xFE}) - {0xEE}  # keeps JFIF and Adobe: they say colours
XMP_PREFIX: Final = b"http://ns.adobe.com/xap/1.0/\0"
PNG_KEPT: Final = (b"PLTE", b"tRNS", b"IDAT", b"IEND")
PNG_TEXTS: Final = (b"tEXt", b"zTXt", b"iTXt")
PNG_XMP: Final = b"XML:com.adobe.xmp"
PNG_RAW_EXIF: Final = b"Raw profile type exif"  # ImageMagick's, in hexadecimal digits
PNG_METADATA: Final = (PNG_XMP, PNG_RAW_EXIF)
LONGEST_KEYWORD: Final = 80  # bytes, with the zero behind it
METADATA_BYTES: Final = 1 << 20  # of a PNG's text when it is inflated; a JPEG's EXIF has at most 64 kB
GIF_HEADER: Final = 13  # bytes
GIF_EXTENSION: Final = 0x21
GIF_IMAGE_OR_END: Final = b",;"
GIF_CONTROL: Final = b"\xf9"
GIF_TRANSPARENT: Final = b"!\xf9\4\1\0\0%b\0"  # an extension that says no more than which colour it is
MOST_PARTS: Final = 100_000  # of a file: of 8 kB each, as libpng writes them, they hold 800 MB
RIFF_HEADER: Final = 12  # bytes
WEBP_HEAD: Final = 10  # bytes of a chunk that say how large the image is
WEBP_METADATA: Final = (b"ICCP", b"EXIF", b"XMP ")
WEBP_FLAGS: Final = 0x20 | 0x08 | 0x04  # that say that these are there


class ReducedImage(NamedTuple):
    """An image file without what its pixels do not need."""

    format: str
    """As Pillow calls it."""
    data: bytes
    orientation: int = UPRIGHT
    size: tuple[int, int] | None = None
    """Width and height, where the file says it in one way only; a decoder may say more."""
    scans: int = 1
    """Passes over all pixels that a JPEG asks for, at most: a preview may count as well."""


def reduce_image(data: bytes) -> ReducedImage:
    """The image file, reduced; its content says its format. Raises IntegrityError."""
    reduce = _find_format(data)
    if reduce is None:
        raise IntegrityError(f"not a picture (it starts with {data[:8]!r})")
    return reduce(data)


def _find_format(data: bytes) -> Callable[[bytes], ReducedImage] | None:
    formats: tuple[tuple[bool, Callable[[bytes], ReducedImage]], ...] = (
        (data.startswith(JPEG_SIGNATURE), _reduce_jpeg),
        (data.startswith(PNG_SIGNATURE), _reduce_png),
        (data.startswith((b"GIF87a", b"GIF89a")), _reduce_gif),
        (data[:4] == b"RIFF" and data[8:12] == b"WEBP", _reduce_webp),
        (data[:4] in TIFF_LAYOUTS, _reduce_tiff),
        (data.startswith(b"BM"), lambda data: ReducedImage("BMP", data)),
        (PPM_SIGNATURE.match(data) is not None, lambda data: ReducedImage("PPM", data)),
    )
    return next((reduce for fits, reduce in formats if fits), None)


def _reduce_jpeg(data: bytes) -> ReducedImage:
    """Keep tables, frame and scans; the parts up to the first scan are written anew, without gaps."""
    parts = list(_jpeg_parts(data))
    frames = [part for part in parts if part.marker in JPEG_FRAMES]
    if len(frames) != 1 or len(frames[0].body) < FRAME_HEAD.size:
        raise IntegrityError(f"cannot be decoded: a JPEG with {len(frames)} whole frames")
    _, height, width, colours = FRAME_HEAD.unpack_from(frames[0].body)
    notes = [part.body for part in parts if part.marker == JPEG_NOTE]
    exif = next((body for body in notes if body.startswith(EXIF_PREFIX)), b"")
    xmp = next((body for body in reversed(notes) if body.startswith(XMP_PREFIX)), b"")
    kept = [data[part.begin : part.end] for part in parts if part.marker not in JPEG_DROPPED]
    scans = 1
    if parts[-1].marker == JPEG_SCAN:
        kept[-1] = data[parts[-1].begin :]
        if frames[0].marker in JPEG_PROGRESSIVE or parts[-1].body[:1] != bytes([colours]):
            scans = kept[-1].count(JPEG_SCAN_MARKER)
    turned = read_orientation(exif, xmp)
    return ReducedImage("JPEG", b"".join((JPEG_SIGNATURE[:2], *kept)), turned, (width, height), scans)


class JpegPart(NamedTuple):
    """A marker of a JPEG, the place of its part, and what it holds."""

    marker: int
    begin: int
    end: int
    body: bytes


def _jpeg_parts(data: bytes) -> Iterator[JpegPart]:
    """Yield the parts up to the head of the first scan; bytes between parts are skipped."""
    at = len(JPEG_SIGNATURE) - 1
    for _ in range(MOST_PARTS):
        found = JPEG_MARKER.search(data, at)
        if found is None or found[1] == JPEG_END:
            return
        begin, marker, at = found.start(), found[1][0], found.end()
        if marker in JPEG_LONE_MARKERS:
            continue
        at += max(int.from_bytes(data[at : at + 2], "big"), 2)
        if at > len(data):
            return
        yield JpegPart(marker, begin, at, data[begin + 4 : at])
        if marker == JPEG_SCAN:
            return
    raise IntegrityError(f"a JPEG with more than {MOST_PARTS:,} parts before its pixels")


def _reduce_png(data: bytes) -> ReducedImage:
    """Keep the chunks of pixels and colours; an animated PNG becomes its first picture."""
    kept, exif, texts = [PNG_SIGNATURE], b"", dict[bytes, bytes]()
    at, parts = len(PNG_SIGNATURE), 0
    while at + 8 <= len(data):
        if (parts := parts + 1) > MOST_PARTS:
            raise IntegrityError(f"a PNG in more than {MOST_PARTS:,} parts")
        length, kind = struct.unpack_from(">L4s", data, at)
        end = at + length + 12  # length, kind and checksum are four bytes each
        if kind in PNG_KEPT or (kind == b"IHDR" and len(kept) == 1):
            kept.append(data[at:end])
        elif kind == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif kind in PNG_TEXTS:
            keyword = data[at + 8 : at + 8 + LONGEST_KEYWORD].partition(b"\0")[0]
            if keyword in PNG_METADATA and keyword not in texts:
                texts[keyword] = _png_text(kind, data[at + 9 + len(keyword) : end - 4])
        at = end
    exif = exif or _raw_profile(texts.get(PNG_RAW_EXIF, b""))
    return ReducedImage("PNG", b"".join(kept), read_orientation(exif, texts.get(PNG_XMP, b"")))


def _png_text(kind: bytes, body: bytes) -> bytes:
    """The text behind a keyword, up to `METADATA_BYTES` of it; nothing where it cannot be inflated."""
    deflated = kind == b"zTXt" or (kind == b"iTXt" and body[:1] == b"\1")
    if kind == b"zTXt":
        body = body[1:]  # behind the method
    elif kind == b"iTXt":
        body = body[2:].split(b"\0", 2)[-1]  # behind flag, method, language and translated keyword
    if not deflated:
        return body[:METADATA_BYTES]
    with suppress(zlib.error):
        return zlib.decompressobj().decompress(body, METADATA_BYTES)
    return b""


def _raw_profile(text: bytes) -> bytes:
    """The bytes that ImageMagick writes as digits, behind three lines about them."""
    with suppress(ValueError):
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii", "replace"))
    return b""


def _reduce_gif(data: bytes) -> ReducedImage:
    """Keep the palette, the first image and which of its colours is transparent."""
    at = GIF_HEADER + _gif_palette(data[10:11])
    head, control = data[:at], b""
    for _ in range(MOST_PARTS):
        if at >= len(data) or data[at] in GIF_IMAGE_OR_END:
            return ReducedImage("GIF", head + control + data[at:])
        if data[at] != GIF_EXTENSION:
            at += 1
            continue
        label, flags, colour = data[at + 1 : at + 2], data[at + 3 : at + 4], data[at + 6 : at + 7]
        if label == GIF_CONTROL and colour and flags[0] & 1:
            control = GIF_TRANSPARENT % colour
        at = _skip_gif_blocks(data, at + 2)
    raise IntegrityError(f"a GIF with more than {MOST_PARTS:,} parts before its pixels")


def _gif_palette(flags: bytes) -> int:
    """Bytes of the palette that these flags announce."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _skip_gif_blocks(data: bytes, at: int) -> int:
    """The position behind blocks, each of which begins with its length; an empty one is the last."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _reduce_webp(data: bytes) -> ReducedImage:
    """Keep the chunks of pixels."""
    kept, size, metadata = [], None, dict[bytes, bytes]()
    at = RIFF_HEADER
    while at + 8 <= len(data):
        kind, length = struct.unpack_from("<4sL", data, at)
        chunk = data[at : at + 8 + length + length % 2]
        size = size or _webp_size(kind, chunk[8:18])
        if kind in WEBP_METADATA:
            metadata.setdefault(kind, chunk[8 : 8 + length])
        else:
            kept.append(_clear_webp_flags(chunk) if kind == b"VP8X" else chunk)
        at += max(len(chunk), 8)
    body = b"".join(kept)
    whole = b"RIFF" + struct.pack("<L", len(body) + 4) + b"WEBP" + body
    turned = read_orientation(metadata.get(b"EXIF", b""), metadata.get(b"XMP ", b""))
    return ReducedImage("WEBP", whole, turned, size)


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int] | None:
    """Width and height from the first bytes of a chunk: of the canvas, of a lossless or a lossy image."""
    if kind == b"VP8X" and len(head) == WEBP_HEAD:
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 " and len(head) == WEBP_HEAD:
        width, height = struct.unpack_from("<HH", head, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _clear_webp_flags(chunk: bytes) -> bytes:
    """The chunk without the flags that say that metadata follows."""
    return chunk[:8] + bytes(flags & ~WEBP_FLAGS for flags in chunk[8:9]) + chunk[9:]


def _reduce_tiff(data: bytes) -> ReducedImage:
    tiff = rewrite_tiff(data)
    turned = read_orientation(b"", tiff.xmp) if tiff.orientation is None else tiff.orientation
    return ReducedImage("TIFF", tiff.data, turned)
