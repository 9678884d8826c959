"""PNG images, changed within their checksums: `pipeline.build.images.clean_image`."""

from __future__ import annotations

import random
import struct
import zlib

from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.targets.images import LIMIT_MB, check
from tests.fuzz.targets.images import seeds as all_seeds
from tests.image_writers import PNG_START, png_chunk

__all__ = ["LIMIT_MB", "check"]


def seeds() -> list[bytes]:
    return [data for data in all_seeds() if data.startswith(PNG_START)]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Change one chunk, or the pixels before they are deflated, and write the checksums anew."""
    chunks = _chunks(data)
    if not chunks or generator.random() < 0.1:
        return mutate_bytes(data, generator)
    at = generator.randrange(len(chunks))
    kind, body = chunks[at]
    if kind == b"IDAT" and generator.random() < 0.5:
        body = zlib.compress(mutate_bytes(_inflated(body), generator), 1)
    elif generator.random() < 0.2:
        kind = generator.choice(
            (b"PLTE", b"tRNS", b"IDAT", b"IHDR", b"eXIf", b"iTXt", b"zTXt", b"tEXt", b"acTL")
        )
    else:
        body = mutate_bytes(body, generator)
    chunks[at] = kind, body
    if generator.random() < 0.1:
        generator.shuffle(chunks)
    return PNG_START + b"".join(png_chunk(kind, body) for kind, body in chunks)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], len(PNG_START)
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, 1 << 16)
    except zlib.error:
        return data
