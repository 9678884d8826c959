"""Small real videos whose frames say their own number, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

BITS = 8  # of a frame's number, as black and white squares along the upper edge
SQUARE = 16  # pixels; a whole macroblock survives compression


def write_clip(
    path: Path,
    frames: int = 12,
    *,
    size: tuple[int, int] = (160, 96),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """A moving pattern, `size` wide and high."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    blocks = np.random.default_rng(0).integers(0, 255, (height // 16, width // 16, 3), np.uint8)
    pattern = blocks.repeat(16, axis=0).repeat(16, axis=1)
    with av.open(str(path), "w", options=container or {}) as target:
        stream = target.add_stream(codec, rate=30, options=options or {"g": "6"})
        stream.codec_context.thread_count = 1  # the same bytes every time
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        for number in range(1, frames + 1):
            frame = av.VideoFrame.from_ndarray(_numbered(pattern, number), format="rgb24")
            target.mux(stream.encode(frame))
        target.mux(stream.encode())
    return path


def _numbered(pattern: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    image = np.roll(pattern, 3 * number, axis=1)
    for bit in range(BITS):
        image[:SQUARE, bit * SQUARE : (bit + 1) * SQUARE] = 255 * (number >> bit & 1)
    return image


def read_number(image: NDArray[np.uint8]) -> int:
    """The number that a frame of `write_clip` shows."""
    squares = (image[4:12, b * SQUARE + 4 : (b + 1) * SQUARE - 4].mean() for b in range(BITS))
    return sum((mean > 128) << bit for bit, mean in enumerate(squares))


def turn_clip(clip: Path, path: Path, degrees: int) -> Path:
    """The same packets with a display matrix: players shall rotate the image, anti-clockwise."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return path


def cut_start(clip: Path, path: Path, packets: int) -> Path:
    """The clip without its first packets, and so without the frame that the next ones refer to."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for position, packet in enumerate(source.demux(source.streams.video[0])):
            if packet.size and position >= packets:
                packet.stream = stream
                target.mux(packet)
    return path


def damage(path: Path, number: int) -> Path:
    """Overwrite the packet of one frame, counted from 1 in the order of the file."""
    with av.open(str(path)) as source:
        packets = [(p.pos, p.size) for p in source.demux(source.streams.video[0]) if p.size]
    place, count = packets[number - 1]
    assert place is not None
    data = bytearray(path.read_bytes())
    data[place : place + count] = b"\xff" * count
    path.write_bytes(data)
    return path
