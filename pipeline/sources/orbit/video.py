"""Decodes the frames of a video in child processes, which may crash, hang or leak without harm.

decord decodes the videos that it decodes exactly; PyAV decodes the others, and takes over where decord
fails, dies or hangs (`video_child` says why). For a frame that neither can decode there is a reason.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import UsageError
from pipeline.sources.orbit import video_child as child

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES: Final = frozenset({".mp4", ".mov", ".mkv"})
FRAME_TIMEOUT: Final = 60.0  # seconds without a frame; a 4K frame on a busy disk takes one
DECORD_BYTES: Final = 256 * 2**20  # decord decodes ahead without limit, at worst the whole clip
PIPE_BYTES: Final = 1 << 20  # so that a frame takes a few reads rather than hundreds
CHILD_CODE: Final = (  # run as a file, so that a decoder does not import the package
    "import sys; sys.path = [p for p in sys.path if p]; import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"
)
NO_REASON: Final = "does not decode"  # of a frame that the decoder left out silently
VIDEO_EXTRA: Final = "pip install -e '.[video]'"

FrameOrReason: TypeAlias = "NDArray[np.uint8] | str"
"""Upright RGB pixels, or why there are none."""


class ChildMessage(NamedTuple):
    """One message of `video_child`; `kind` is one of its constants."""

    kind: bytes
    number: int
    body: NDArray[np.uint8]

    @property
    def text(self) -> str:
        return self.body.tobytes().decode(errors="replace")


class VideoFacts(NamedTuple):
    """What the container of a video says; nothing is decoded."""

    frames: int
    """Frames in the file."""
    listed: int
    """Frames that the container's list promises (cut off if more than `frames`); 0 without a list."""
    width: int
    height: int


class DecoderFailed(Exception):
    """The decoding process died, hangs, or cannot read the video."""


class DecoderProcess:
    """A decoding process, started by the first request; use it with `contextlib.closing`."""

    def __init__(self, timeout: float = FRAME_TIMEOUT) -> None:
        self.timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: child.VideoRequest) -> Iterator[ChildMessage]:
        """Yield the messages that answer a request, including the last one."""
        process = self._running_process()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise DecoderFailed(self._describe_death()) from error
        while True:
            message = self._read_message()
            if message.kind == child.FAILED:
                raise DecoderFailed(message.text)
            if message.kind == child.NO_LIBRARY:
                raise UsageError(f"videos cannot be decoded: {message.text}; {VIDEO_EXTRA}")
            yield message
            if message.kind in {child.DONE, child.PROBED}:
                return

    def close(self) -> None:
        """Kill the process and wait for it."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            try:
                pipe.close()
            except BrokenPipeError:  # a request that was never read
                logger.debug("the decoder died before it read its request")
        self._process = None

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and file)
                [sys.executable, "-c", CHILD_CODE, child.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # FFmpeg writes without end about a damaged file
                pipesize=PIPE_BYTES,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        return self._process

    def _read_message(self) -> ChildMessage:
        header = bytearray(child.MESSAGE_HEADER.size)
        self._read_into(memoryview(header))
        kind, number, height, width, size = child.MESSAGE_HEADER.unpack(header)
        if size > 3 * PIXEL_LIMIT:
            raise DecoderFailed(f"{width:,} x {height:,} pixels are more than the {PIXEL_LIMIT:,} allowed")
        shape = (height, width, 3) if kind == child.GOOD_FRAME else (size,)
        body = np.empty(shape, np.uint8)
        if size:
            self._read_into(memoryview(body).cast("B"))  # type: ignore[arg-type]  # numpy before 3.12
        return ChildMessage(kind, number, body)

    def _read_into(self, view: memoryview) -> None:
        """Read until the view is full; a process that is silent for too long, or gone, is an error."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        done = 0
        while done < len(view):
            if not poll.poll(self.timeout * 1000):
                raise DecoderFailed(f"the decoder made no progress for {self.timeout:g} s")
            count = os.readv(pipe, [view[done:]])
            if not count:
                raise DecoderFailed(self._describe_death())
            done += count

    def _describe_death(self) -> str:
        assert self._process is not None
        self._process.kill()  # it may have closed its pipe and still run
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the decoder died ({how})"


class VideoProbe(DecoderProcess):
    """Counts the frames of many videos in one process."""

    def read_facts(self, path: Path) -> VideoFacts | str:
        """What the container says, or why it cannot be read."""
        try:
            request = child.VideoRequest(path=str(path.absolute()), numbers=[], decord_bytes=0)
            values = json.loads(list(self.ask(request))[-1].text)
        except DecoderFailed as error:
            self.close()
            return str(error)
        return VideoFacts(*(values[name] for name in VideoFacts._fields))


def require_decoders() -> None:
    """Check, once and before the work, that videos can be decoded; log if only PyAV is installed."""
    if not decord_memory():
        logger.info("decord is not installed; PyAV alone decodes the videos (%s)", VIDEO_EXTRA)


def decoder_versions() -> dict[str, str]:
    """The versions of the installed decoders."""
    distributions = {
        name
        for module in ("av", "decord")
        for name in importlib.metadata.packages_distributions().get(module, ())
    }
    return {name: importlib.metadata.version(name) for name in sorted(distributions)}


def decord_memory() -> int:
    """Bytes that decord may use; 0 if it is not installed. Raises UsageError without PyAV."""
    if importlib.util.find_spec("av") is None:
        raise UsageError(f"videos are decoded by PyAV and decord, and PyAV is not installed; {VIDEO_EXTRA}")
    return DECORD_BYTES if importlib.util.find_spec("decord") else 0


def decode_frames(
    path: Path, numbers: Sequence[int], *, timeout: float = FRAME_TIMEOUT, decord_bytes: int | None = None
) -> Iterator[tuple[int, FrameOrReason]]:
    """Yield each number (from 1, in presentation order, ascending) and its frame, or why it has none."""
    limit = decord_memory() if decord_bytes is None else decord_bytes
    waiting = deque(numbers)
    reason = ""
    for decord in (limit, 0) if limit else (0,):
        if not waiting:
            return
        path.stat()  # a source that has gone away ends the build; it is not a bad video
        request = child.VideoRequest(path=str(path.absolute()), numbers=list(waiting), decord_bytes=decord)
        try:
            with closing(DecoderProcess(timeout)) as process:
                yield from _match_frames(process.ask(request), waiting)
        except DecoderFailed as error:
            reason = str(error)
            logger.debug("%s: %s (decord: %s)", path, reason, bool(decord))
    for number in waiting:
        yield number, reason


def _match_frames(
    messages: Iterator[ChildMessage], waiting: deque[int]
) -> Iterator[tuple[int, FrameOrReason]]:
    """Yield and remove from `waiting` each number that a message answers."""
    reasons: dict[int, str] = {}
    for message in messages:
        if message.kind == child.BAD_FRAME:
            reasons[message.number] = message.text
        elif message.kind == child.GOOD_FRAME:
            while waiting and waiting[0] < message.number:  # left out: it will not come
                number = waiting.popleft()
                yield number, reasons.pop(number, NO_REASON)
            if waiting and waiting[0] == message.number:
                yield waiting.popleft(), message.body
        elif message.kind == child.DONE:
            logger.debug("decoded by %s", message.text)
            while waiting:
                number = waiting.popleft()
                yield number, reasons.pop(number, NO_REASON)
