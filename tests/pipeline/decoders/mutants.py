"""JPEGs damaged in every way, through a decoder, in a process of their own: a crash is its exit code.

python -m tests.pipeline.decoders.mutants turbo|dali SCRATCH COUNT SEED
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from pipeline.decoders.choose import DecoderName
from tests.pipeline.decoders.planted import SIZE, decode_all, make_jpegs, open_cpu_decoder, write_shard

BATCHES = (1, 3, 40, 100)
"""Images in a job. Where DALI refuses one, all of its job are decoded strictly; alone, one may pass."""


def mutant(data: bytes, draw: np.random.Generator) -> bytes:
    """Shortened, bits flipped, a hole, something inserted, a false end, or a damaged header."""
    bytes_, kind = bytearray(data), int(draw.integers(6))
    place = int(draw.integers(2, len(data)))
    if kind == 0:
        del bytes_[place:]
    elif kind == 1:
        for at in draw.integers(len(data), size=int(draw.integers(1, 20))):
            bytes_[at] ^= 1 << int(draw.integers(8))
    elif kind == 2:
        bytes_[place : place + 300] = bytes(len(bytes_[place : place + 300]))
    elif kind == 3:
        bytes_[place:place] = draw.bytes(int(draw.integers(1, 50)))
    elif kind == 4:
        bytes_[place:] = b"\xff\xd9"
    else:
        for at in draw.integers(2, 600, size=int(draw.integers(1, 6))):
            bytes_[at] = int(draw.integers(256))
    return bytes(bytes_)


def by_simplejpeg(data: bytes, *, strict: bool) -> NDArray[np.uint8] | None:
    """Its pixels, or None if it refuses them."""
    buffer = np.zeros((SIZE, SIZE, 3), np.uint8)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", buffer=buffer, strict=strict)
    except ValueError:
        return None
    return pixels if pixels.shape == buffer.shape else None


def verdict(name: str, data: bytes, pixels: NDArray[np.uint8], *, flagged: bool) -> str:
    """How a decoder did with one image. Anything wrong is an AssertionError."""
    strict = by_simplejpeg(data, strict=True)
    if flagged:
        assert not pixels.any(), "a fault's pixels are not zeros"
        coloured = simplejpeg.decode_jpeg_header(data)[2] if strict is not None else ""
        assert strict is None or (name == "dali" and coloured == "CMYK"), "a sound picture is flagged"
        return "flagged"
    if strict is not None:
        assert np.array_equal(pixels, strict), "wrong pixels"
        return "sound"
    # DALI says nothing of damage that libjpeg can paper over: the checksum is there to tell
    assert name == "dali", "damage is not flagged"
    lenient = by_simplejpeg(data, strict=False)
    assert lenient is not None
    assert np.array_equal(pixels, lenient), "pixels of nobody"
    return "papered over"


def main(name: DecoderName, scratch: str, count: int, seed: int) -> None:
    """Print how many of each verdict there were."""
    draw = np.random.default_rng(seed)
    sound = [
        data
        for subsampling in ("4:2:0", "4:4:4")
        for progressive in (False, True)
        for data in make_jpegs(10, subsampling=subsampling, progressive=progressive)
    ]
    verdicts: Counter[str] = Counter()
    with open_cpu_decoder(name) as decoder:
        while verdicts.total() < count:
            chosen = draw.integers(len(sound), size=draw.choice(BATCHES))
            pictures = [mutant(sound[picked], draw) for picked in chosen]
            locations = write_shard(Path(scratch) / str(verdicts.total()), pictures)
            images, faults = decode_all(decoder, locations)
            flagged = {fault.at for fault in faults}
            for at, (data, pixels) in enumerate(zip(pictures, images.numpy(), strict=True)):
                verdicts[verdict(name, data, pixels, flagged=at in flagged)] += 1
    print(dict(verdicts))


if __name__ == "__main__":
    main("dali" if sys.argv[1] == "dali" else "turbo", sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
