"""A process of its own that decodes videos, so that a crash, a hang or a leak dies with it.

`video.py` starts this file, writes one JSON request per line to its stdin and reads messages (HEADER
and a body) from its stdout. When stdin ends, the parent is gone, and so is this process.

PyAV is the measure: it numbers frames by their time stamps, so a frame that does not decode leaves a
gap and moves no other frame. decord counts instead of looking at time stamps, so it is read strictly
from the first frame on (its seeks land beside the frame asked for where groups of pictures are open),
every batch waits for PyAV's word that each of its frames decodes, and it only sees 8-bit H.264, whose
pixels both libraries give alike. Both decode with one thread: with several, the repair of damaged
frames depends on timing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

HEADER: Final = struct.Struct("<cIIIQ")  # kind, frame number, height, width, bytes of the body
FRAME: Final = b"F"  # the body is height x width x 3 pixels
BAD_FRAME: Final = b"X"  # the body says why the frame does not decode
PROGRESS: Final = b"T"
PROBED: Final = b"P"  # the body is a JSON object
FAILED: Final = b"E"  # the body says why the request cannot be met
NO_LIBRARY: Final = b"L"  # the body says what cannot be imported
DONE: Final = b"D"  # the body names the decoder
BATCH_BYTES: Final = 16 * 2**20  # decord copies a batch at a time

Send = Callable[..., None]


class Request(TypedDict):
    """`numbers` are the frames wanted, from 1, ascending; none: only count the frames."""

    path: str
    numbers: list[int]
    decord_bytes: int


class Unfit(Exception):
    """This video is not for this decoder."""


class Packets(NamedTuple):
    """What the container says, before anything is decoded."""

    frames: int
    """Those whose packets are in the file."""
    listed: int
    """Frames that the container's own list promises; 0 where it has none."""
    numbers: dict[int, int]
    """Frame number by time stamp; empty where time stamps are missing or double."""
    codec: str
    pixels: str
    width: int
    height: int


def packets_of(path: str) -> Packets:
    """Read the packets, in the order of the file, and number them in the order of presentation."""
    import av  # noqa: PLC0415  (only a child may import it)

    stamps: list[int | None] = []
    hidden = 0
    with av.open(path) as container:
        stream = _stream(container)
        context = stream.codec_context
        with contextlib.suppress(av.FFmpegError):  # cut off: what came before counts
            for packet in container.demux(stream):
                hidden += packet.is_discard
                if packet.size and not packet.is_discard:
                    stamps.append(packet.pts)
        known = sorted({stamp for stamp in stamps if stamp is not None})
        whole = len(known) == len(stamps)
        return Packets(
            frames=len(stamps),
            listed=max(stream.frames - hidden, 0),
            numbers={stamp: number for number, stamp in enumerate(known, 1)} if whole else {},
            codec=context.name,
            pixels=context.pix_fmt or "",
            width=context.width,
            height=context.height,
        )


def _stream(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise Unfit("holds no video")
    return container.streams.video[0]


def by_pyav(path: str, packets: Packets) -> Iterator[tuple[int, av.VideoFrame | str]]:
    """Number and frame, or the reason it is bad, in the order the decoder gives them."""
    import av  # noqa: PLC0415

    with av.open(path) as container:
        stream = _stream(container)
        stream.codec_context.thread_count = 1
        number = 0
        for packet in _packets(container, stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError as error:
                if packet is not None and packet.pts in packets.numbers:
                    yield packets.numbers[packet.pts], f"does not decode: {error.strerror}"
                continue
            for frame in frames:
                number = packets.numbers.get(-1 if frame.pts is None else frame.pts, number + 1)
                yield number, frame


def _packets(
    container: InputContainer, stream: VideoStream
) -> Iterator[Packet[VideoStream] | None]:
    """The packets up to the end or the first damage of the container, then None to flush."""
    import av  # noqa: PLC0415

    with contextlib.suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    yield None


def upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """RGB pixels, turned as the container's display matrix asks."""
    import numpy as np  # noqa: PLC0415

    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def by_decord(path: str, packets: Packets) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The same frames from decord, as long as PyAV confirms each of them; Unfit where it does not."""
    import decord  # noqa: PLC0415

    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    if len(reader) != packets.frames:
        raise Unfit(f"decord counts {len(reader)} frames, the container {packets.frames}")
    confirmed = (number for number, frame in by_pyav(path, packets) if not isinstance(frame, str))
    batch = max(BATCH_BYTES // max(packets.width * packets.height * 3, 1), 1)
    for start in range(0, packets.frames, batch):
        numbers = list(range(start + 1, min(start + batch, packets.frames) + 1))
        if list(islice(confirmed, len(numbers))) != numbers:
            raise Unfit(f"not every frame of {numbers[0]} to {numbers[-1]} decodes")
        yield from zip(numbers, reader.get_batch([n - 1 for n in numbers]).asnumpy(), strict=True)


def for_decord(packets: Packets, limit: int) -> bool:
    """Whether decord gives PyAV's pixels, and within memory: it may hold the whole decoded clip."""
    alike = packets.codec == "h264" and packets.pixels in {"yuv420p", "yuvj420p"}
    return alike and packets.frames * packets.width * packets.height * 3 <= limit


def decode(request: Request, packets: Packets, send: Send) -> str:
    """Send the frames asked for; returns the decoder's name."""
    import numpy as np  # noqa: PLC0415

    wanted, last = set(request["numbers"]), max(request["numbers"])
    decord = for_decord(packets, request["decord_bytes"])
    source = by_decord if decord else by_pyav
    for number, found in source(request["path"], packets):
        if isinstance(found, str):
            send(BAD_FRAME, number, body=found.encode())
        elif number in wanted:
            pixels = found if isinstance(found, np.ndarray) else upright(found)
            send(FRAME, number, *pixels.shape[:2], body=pixels)
        else:
            send(PROGRESS, number)
        if number >= last and not isinstance(found, str):
            break
    return "decord" if decord else "PyAV"


def answer(request: Request, send: Send) -> None:
    """Meet one request; every failure of a foreign library becomes a message."""
    try:
        packets = packets_of(request["path"])
        if not request["numbers"]:
            send(PROBED, body=json.dumps(packets._replace(numbers={})._asdict()).encode())
            return
        send(DONE, body=decode(request, packets, send).encode())
    except ImportError as error:
        send(NO_LIBRARY, body=str(error).encode())
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a decoder throws, the parent must hear of it)
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        send(FAILED, body=reason.encode(errors="replace")[-500:])


def main() -> None:
    """Serve requests until stdin ends."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when Ctrl-C ends us
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print must not write between the messages
    requests: SimpleQueue[Request] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            requests.put(json.loads(line))
        os._exit(0)

    def send(
        kind: bytes, number: int = 0, height: int = 0, width: int = 0, body: object = b""
    ) -> None:
        view = memoryview(body).cast("B")  # type: ignore[arg-type]
        out.write(HEADER.pack(kind, number, height, width, view.nbytes))
        out.write(view)
        out.flush()

    threading.Thread(target=listen, daemon=True).start()
    while True:
        answer(requests.get(), send)


if __name__ == "__main__":
    main()
