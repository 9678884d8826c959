"""CUDA's streams and events, pretended: queues of operators that run after random delays, counted in operators."""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch

DEVICE: Final = torch.device("cuda", 0)
AUTOCAST: Final = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)


STRETCH: Final = 32  # operators for which a stream stays fast, or slow
CLOCKS: Final[list[DeviceClock]] = []
"""Of the pretended GPUs that are there; the last one is used."""


@dataclass(slots=True)
class QueuedOperator:
    """What a stream does next, once `delay` ticks have passed and `awaits` is over."""

    run: Callable[[], object]
    delay: int
    awaits: DeviceEvent | None = None


class DeviceClock:
    """All streams, and the time of the device: a tick passes with each operator that is asked for."""

    def __init__(self, lag: int, seed: int, synchronised: Callable[[], None]) -> None:
        self.lag = lag
        self.now = 0
        self.lock = threading.RLock()
        self.synchronised = synchronised
        """Called when the host waits."""
        self._random = random.Random(seed)
        self.streams: list[DeviceStream] = []
        self._threads = threading.local()
        self.default = DeviceStream(clock=self)

    def add(self, stream: DeviceStream) -> None:
        """Let a new stream's operators run."""
        with self.lock:
            self.streams.append(stream)

    @property
    def current(self) -> DeviceStream:
        """The stream of this thread."""
        stream: DeviceStream = getattr(self._threads, "stream", self.default)
        return stream

    @contextmanager
    def using(self, stream: DeviceStream | None) -> Iterator[None]:
        """Make a stream the one of this thread."""
        before = self.current
        self._threads.stream = stream or before
        try:
            yield
        finally:
            self._threads.stream = before

    def draw_delays(self) -> list[int]:
        """Ticks that a stream's next operators take: a stream is fast for a while, then slow for a while."""
        slow = self._random.random() < 0.5
        return [self._random.randint(0, self.lag) if slow else 0 for _ in range(STRETCH)]

    def tick(self) -> None:
        """Let time pass: each stream runs its next operator, if it is ready."""
        with self.lock:
            self.now += 1
            for stream in self.streams if self._random.random() < 0.5 else reversed(self.streams):
                if stream.queue:
                    stream.advance()

    def wait(self, stream: DeviceStream, event: DeviceEvent | None = None) -> None:
        """Let time pass until an event is over, or all that a stream has to do."""
        while stream.queue and not (event and event.over):
            self.tick()


class DeviceStream:
    """In place of torch.cuda.Stream: operators in their order."""

    def __init__(self, *_: object, clock: DeviceClock | None = None, **__: object) -> None:
        self.clock = clock or _clock()
        self.device = DEVICE
        self.queue: deque[QueuedOperator] = deque()
        self._delays: list[int] = []
        self.clock.add(self)

    def submit(self, run: Callable[[], object], awaits: DeviceEvent | None = None) -> None:
        """Queue an operator."""
        clock = self.clock
        with clock.lock:
            self._delays = self._delays or clock.draw_delays()
            self.queue.append(QueuedOperator(run, self._delays.pop(), awaits))
            if clock.lag:
                clock.tick()
            else:
                clock.now += 1
                self.advance()

    def advance(self) -> None:
        """Run the next operator, if it is ready."""
        first = self.queue[0]
        if first.awaits is not None and not first.awaits.over:
            return
        if first.delay:
            first.delay -= 1
            return
        with torch.no_grad(), torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            first.run()
        self.queue.popleft()

    def record_event(self, event: DeviceEvent | None = None) -> DeviceEvent:
        """An event that is over when all operators so far are."""
        event = event or DeviceEvent()
        event.record(self)
        return event

    def wait_event(self, event: DeviceEvent) -> None:
        """Begin no later operator before an event is over."""
        self.submit(_nothing, event.latest())

    def wait_stream(self, stream: DeviceStream) -> None:
        """Begin no later operator before those of another stream so far are over."""
        self.wait_event(stream.record_event())

    def query(self) -> bool:
        """Whether all is over."""
        self.clock.tick()
        return not self.queue

    def synchronize(self) -> None:
        """Make the host wait."""
        self.clock.synchronised()
        self.clock.wait(self)

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being recorded."""
        return False


class DeviceEvent:
    """In place of torch.cuda.Event: a place in a stream's queue."""

    def __init__(self, *, enable_timing: bool = False, **_: object) -> None:
        self.timed = enable_timing
        self.stream: DeviceStream | None = None
        self.over = True  # so is an event of CUDA that was never recorded
        self.at: int | None = None
        """The tick at which it was reached."""
        self._waited = self

    def record(self, stream: DeviceStream | None = None) -> None:
        """Stand for all operators of a stream so far, in place of earlier ones."""
        self.stream = stream or _clock().current
        self.over, self.at = False, None
        place = self._waited = DeviceEvent()  # who waits for an event waits for where it stood
        place.over = False

        def reach() -> None:
            place.over = True
            if self._waited is place:
                self.over, self.at = True, self.stream.clock.now  # type: ignore[union-attr]

        self.stream.submit(reach)

    def latest(self) -> DeviceEvent:
        """The place of the last record."""
        return self._waited

    def wait(self, stream: DeviceStream | None = None) -> None:
        """Make a stream wait."""
        (stream or _clock().current).wait_event(self)

    def query(self) -> bool:
        """Whether it is over; asking takes time, so that whoever asks again and again sees it happen."""
        if self.stream is not None:
            self.stream.clock.tick()
        return self.over

    def synchronize(self) -> None:
        """Make the host wait."""
        if self.stream is not None:
            self.stream.clock.synchronised()
            self.stream.clock.wait(self.stream, self)

    def elapsed_time(self, end: DeviceEvent) -> float:
        """Ticks from this event to another, as CUDA gives milliseconds."""
        if not (self.timed and end.timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self.at is None or end.at is None:
            raise RuntimeError("Both events must be completed before calculating elapsed time.")
        return float(end.at - self.at)


def _nothing() -> None:
    pass


def _clock() -> DeviceClock:
    return CLOCKS[-1]
