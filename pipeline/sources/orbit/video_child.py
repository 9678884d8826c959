"""The process that decodes videos, separate so that a crash, a hang or a leak ends with it.

It may allocate `PYAV_MEMORY`: an index can claim a hundred million frames in a few bytes.

`video.py` starts this file, writes one JSON request per line to its stdin and reads messages (header
and body) from its stdout. When stdin ends, the parent is gone and this process ends too.

PyAV is the reference: it numbers frames by their time stamps, so a frame that does not decode leaves a
gap and shifts no other frame. decord counts and ignores time stamps, so it is read strictly from the
first frame on (its seeks miss the frame asked for where groups of pictures are open), every batch waits
until PyAV confirms that each of its frames decodes, and it only gets 8-bit H.264, for which both
libraries give the same pixels. Both decode with one thread: with several, the repair of damaged frames
depends on timing.
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

MESSAGE_HEADER: Final = struct.Struct("<cIIIQ")  # kind, frame number, height, width, bytes of the body
GOOD_FRAME: Final = b"F"  # the body is height x width x 3 pixels
BAD_FRAME: Final = b"X"  # the body says why the frame does not decode
PROGRESS: Final = b"T"  # a frame that was not asked for; resets the timeout
PROBED: Final = b"P"  # the body is a JSON object
FAILED: Final = b"E"  # the body says why the request failed
NO_LIBRARY: Final = b"L"  # the body says which import failed
DONE: Final = b"D"  # the body names the decoder
PYAV_MEMORY: Final = 2 * 2**30  # bytes of address space; an 8K clip takes one, a lying index would take all
DECORD_MEMORY: Final = 6 * 2**30  # the same; decord reserves four and uses at most one
BATCH_BYTES: Final = 16 * 2**20  # decord copies a batch at a time

Send = Callable[..., None]


class VideoRequest(TypedDict):
    """`numbers` are the frames to decode, from 1, ascending; if empty, frames are only counted."""

    path: str
    numbers: list[int]
    decord_bytes: int


class UnfitVideo(Exception):
    """This decoder cannot decode this video."""


class ContainerFacts(NamedTuple):
    """What the container of a video says; nothing is decoded."""

    frames: int
    """Frames whose packets are in the file."""
    listed: int
    """Frames that the container's list promises; 0 without a list."""
    numbers: dict[int, int]
    """Frame number by time stamp; empty if time stamps are missing or repeated."""
    codec: str
    pixels: str
    width: int
    height: int


def limit_memory(limit: int) -> None:
    """Let this process allocate no more than `limit` bytes, where the system has such a limit."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # noqa: PLC0415  (not on Windows)

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def read_container(path: str) -> ContainerFacts:
    """Read the packets in the order of the file, and number them in the order of presentation."""
    import av  # noqa: PLC0415  (only a child may import it)

    stamps: list[int | None] = []
    hidden = 0
    with av.open(path) as container:
        stream = _video_stream(container)
        context = stream.codec_context
        with contextlib.suppress(av.FFmpegError):  # cut off: the packets before the cut count
            for packet in container.demux(stream):
                hidden += packet.is_discard
                if packet.size and not packet.is_discard:
                    stamps.append(packet.pts)
        distinct = sorted({stamp for stamp in stamps if stamp is not None})
        complete = len(distinct) == len(stamps)
        return ContainerFacts(
            frames=len(stamps),
            listed=max(stream.frames - hidden, 0),
            numbers={stamp: number for number, stamp in enumerate(distinct, 1)} if complete else {},
            codec=context.name,
            pixels=context.pix_fmt or "",
            width=context.width,
            height=context.height,
        )


def _video_stream(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise UnfitVideo("holds no video")
    return container.streams.video[0]


def decode_by_pyav(path: str, packets: ContainerFacts) -> Iterator[tuple[int, av.VideoFrame | str]]:
    """Yield number and frame (or why it is bad) in the order of the decoder."""
    import av  # noqa: PLC0415

    with av.open(path) as container:
        stream = _video_stream(container)
        stream.codec_context.thread_count = 1
        number = 0
        for packet in _readable_packets(container, stream):
            try:
                frames = stream.decode(packet)
            except av.FFmpegError as error:
                if packet is not None and packet.pts in packets.numbers:
                    yield packets.numbers[packet.pts], f"does not decode: {error.strerror}"
                continue
            for frame in frames:
                number = packets.numbers.get(-1 if frame.pts is None else frame.pts, number + 1)
                yield number, frame


def _readable_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream] | None]:
    """Yield the packets up to the end or the first damage of the container, then None to flush."""
    import av  # noqa: PLC0415

    with contextlib.suppress(av.FFmpegError):
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    yield None


def rotate_upright(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """RGB pixels, rotated as the container's display matrix says."""
    import numpy as np  # noqa: PLC0415

    pixels = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def decode_by_decord(path: str, packets: ContainerFacts) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The same frames from decord while PyAV confirms each of them; raises UnfitVideo otherwise."""
    limit_memory(DECORD_MEMORY)
    import decord  # noqa: PLC0415

    reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
    if len(reader) != packets.frames:
        raise UnfitVideo(f"decord counts {len(reader)} frames, the container {packets.frames}")
    confirmed = (number for number, frame in decode_by_pyav(path, packets) if not isinstance(frame, str))
    batch = max(BATCH_BYTES // max(packets.width * packets.height * 3, 1), 1)
    for start in range(0, packets.frames, batch):
        numbers = list(range(start + 1, min(start + batch, packets.frames) + 1))
        if list(islice(confirmed, len(numbers))) != numbers:
            raise UnfitVideo(f"not every frame of {numbers[0]} to {numbers[-1]} decodes")
        yield from zip(numbers, reader.get_batch([n - 1 for n in numbers]).asnumpy(), strict=True)


def decord_can_read(packets: ContainerFacts, limit: int) -> bool:
    """Whether decord gives the same pixels as PyAV within `limit` bytes: it may hold the whole clip."""
    same_pixels = packets.codec == "h264" and packets.pixels in {"yuv420p", "yuvj420p"}
    return same_pixels and packets.frames * packets.width * packets.height * 3 <= limit


def decode_request(request: VideoRequest, packets: ContainerFacts, send: Send) -> str:
    """Send the frames of a request. Returns the name of the decoder."""
    import numpy as np  # noqa: PLC0415

    numbers, last = set(request["numbers"]), max(request["numbers"])
    decord = decord_can_read(packets, request["decord_bytes"])
    source = decode_by_decord if decord else decode_by_pyav
    for number, frame in source(request["path"], packets):
        if isinstance(frame, str):
            send(BAD_FRAME, number, body=frame.encode())
        elif number in numbers:
            pixels = frame if isinstance(frame, np.ndarray) else rotate_upright(frame)
            send(GOOD_FRAME, number, *pixels.shape[:2], body=pixels)
        else:
            send(PROGRESS, number)
        if number >= last and not isinstance(frame, str):
            break
    return "decord" if decord else "PyAV"


def answer_request(request: VideoRequest, send: Send) -> None:
    """Answer one request; every failure of a decoder becomes a message."""
    try:
        packets = read_container(request["path"])
        if not request["numbers"]:
            send(PROBED, body=json.dumps(packets._replace(numbers={})._asdict()).encode())
            return
        send(DONE, body=decode_request(request, packets, send).encode())
    except ImportError as error:
        send(NO_LIBRARY, body=str(error).encode())
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001  (whatever a decoder raises, the parent must be told)
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        send(FAILED, body=reason.encode(errors="replace")[-500:])


def main() -> None:
    """Answer requests until stdin ends."""
    limit_memory(PYAV_MEMORY)
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when Ctrl-C ends us
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # libraries that print must not write between the messages
    requests: SimpleQueue[VideoRequest] = SimpleQueue()

    def listen() -> None:
        for line in sys.stdin.buffer:
            requests.put(json.loads(line))
        os._exit(0)

    def send(kind: bytes, number: int = 0, height: int = 0, width: int = 0, body: object = b"") -> None:
        view = memoryview(body).cast("B")  # type: ignore[arg-type]
        out.write(MESSAGE_HEADER.pack(kind, number, height, width, view.nbytes))
        out.write(view)
        out.flush()

    threading.Thread(target=listen, daemon=True).start()
    while True:
        answer_request(requests.get(), send)


if __name__ == "__main__":
    main()
