"""The frames of a video, decoded by child processes that may crash, hang or leak at no one's cost.

decord reads what it reads exactly; PyAV reads the rest, and takes over where decord fails, dies or
stands still (`video_child` says why it is so). What neither can read is handed back as a reason.
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
PATIENCE: Final = 60.0  # seconds without a frame; a 4K frame on a busy disk takes one
DECORD_BYTES: Final = 256 * 2**20  # decord decodes ahead without limit: at worst the whole clip
PIPE_BYTES: Final = 1 << 20  # a frame in a few reads rather than in hundreds
START: Final = (  # as a file, without the package: its imports are ours, not a decoder's
    "import sys; sys.path = [p for p in sys.path if p]; import runpy; runpy.run_path(sys.argv[1], run_name='__main__')"
)
UNSAID: Final = "does not decode"  # a frame that the decoder left out without a word
EXTRA: Final = "pip install -e '.[video]'"

Frame: TypeAlias = "NDArray[np.uint8] | str"
"""RGB pixels, upright; or why there are none."""


class Message(NamedTuple):
    kind: bytes
    number: int
    body: NDArray[np.uint8]

    @property
    def text(self) -> str:
        return self.body.tobytes().decode(errors="replace")


class VideoFacts(NamedTuple):
    """What a video's container says; nothing was decoded."""

    frames: int
    """Frames in the file."""
    listed: int
    """Frames that the container's list promises (more than `frames`: cut off); 0 if it has none."""
    width: int
    height: int


class Broken(Exception):
    """The child died, stands still, or cannot read the video."""


class Child:
    """A decoding process, started by the first request; for `contextlib.closing`."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: child.Request) -> Iterator[Message]:
        """The messages that answer a request, the last one included."""
        process = self._running()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except OSError as error:
            raise Broken(self._death()) from error
        while True:
            message = self._message()
            if message.kind == child.FAILED:
                raise Broken(message.text)
            if message.kind == child.NO_LIBRARY:
                raise UsageError(f"videos cannot be decoded: {message.text}; {EXTRA}")
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

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(  # noqa: S603  (our own interpreter and file)
                [sys.executable, "-c", START, child.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # FFmpeg's remarks, without end for a damaged file
                pipesize=PIPE_BYTES,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            )
        return self._process

    def _message(self) -> Message:
        header = bytearray(child.HEADER.size)
        self._fill(memoryview(header))
        kind, number, height, width, size = child.HEADER.unpack(header)
        if size > 3 * PIXEL_LIMIT:
            raise Broken(f"{width:,} x {height:,} pixels are more than the {PIXEL_LIMIT:,} allowed")
        shape = (height, width, 3) if kind == child.FRAME else (size,)
        body = np.empty(shape, np.uint8)
        if size:
            self._fill(memoryview(body).cast("B"))  # type: ignore[arg-type]  # numpy before 3.12
        return Message(kind, number, body)

    def _fill(self, view: memoryview) -> None:
        """Read until the view is full; a child that is silent for too long or gone is an error."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        done = 0
        while done < len(view):
            if not poll.poll(self._patience * 1000):
                raise Broken(f"the decoder made no progress for {self._patience:g} s")
            count = os.readv(pipe, [view[done:]])
            if not count:
                raise Broken(self._death())
            done += count

    def _death(self) -> str:
        assert self._process is not None
        self._process.kill()  # it may have closed its pipe and live on
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the decoder died ({how})"


class Probe(Child):
    """Counts the frames of many videos with one process."""

    def __init__(self, patience: float = PATIENCE) -> None:
        super().__init__(patience)

    def facts(self, path: Path) -> VideoFacts | str:
        """What the container says, or why it cannot be read."""
        try:
            request = child.Request(path=str(path.absolute()), numbers=[], decord_bytes=0)
            found = json.loads(list(self.ask(request))[-1].text)
        except Broken as error:
            self.close()
            return str(error)
        return VideoFacts(*(found[name] for name in VideoFacts._fields))


def require() -> None:
    """Check, once and before the work, that videos can be decoded; tell if only PyAV is there."""
    if not usable_by_decord():
        logger.info("decord is not installed; PyAV alone decodes the videos (%s)", EXTRA)


def decoders() -> dict[str, str]:
    """The installed decoders' versions."""
    distributions = {
        name
        for module in ("av", "decord")
        for name in importlib.metadata.packages_distributions().get(module, ())
    }
    return {name: importlib.metadata.version(name) for name in sorted(distributions)}


def usable_by_decord() -> int:
    """Bytes that decord may hold; 0 where it is not installed. Raises UsageError without PyAV."""
    if importlib.util.find_spec("av") is None:
        raise UsageError(
            f"videos are decoded by PyAV and decord, and PyAV is not installed; {EXTRA}"
        )
    return DECORD_BYTES if importlib.util.find_spec("decord") else 0


def frames(
    path: Path,
    numbers: Sequence[int],
    *,
    patience: float = PATIENCE,
    decord_bytes: int | None = None,
) -> Iterator[tuple[int, Frame]]:
    """Each number (from 1, in presentation order; ascending) with its frame or the reason it has none."""
    limit = usable_by_decord() if decord_bytes is None else decord_bytes
    waiting = deque(numbers)
    reason = ""
    for decord in (limit, 0) if limit else (0,):
        if not waiting:
            return
        path.stat()  # a source that went away ends the build; it is not a bad video
        request = child.Request(
            path=str(path.absolute()), numbers=list(waiting), decord_bytes=decord
        )
        try:
            with closing(Child(patience)) as process:
                yield from _matched(process.ask(request), waiting)
        except Broken as error:
            reason = str(error)
            logger.debug("%s: %s (decord: %s)", path, reason, bool(decord))
    for number in waiting:
        yield number, reason


def _matched(messages: Iterator[Message], waiting: deque[int]) -> Iterator[tuple[int, Frame]]:
    """Take from `waiting` each number that a message settles."""
    reasons: dict[int, str] = {}
    for message in messages:
        if message.kind == child.BAD_FRAME:
            reasons[message.number] = message.text
        elif message.kind == child.FRAME:
            while waiting and waiting[0] < message.number:  # passed by: it will not come
                number = waiting.popleft()
                yield number, reasons.pop(number, UNSAID)
            if waiting and waiting[0] == message.number:
                yield waiting.popleft(), message.body
        elif message.kind == child.DONE:
            logger.debug("decoded by %s", message.text)
            while waiting:
                number = waiting.popleft()
                yield number, reasons.pop(number, UNSAID)
