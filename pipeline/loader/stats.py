"""A loader's metrics: how long its consumer waited, and what for."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """Counts and seconds since the loader was opened, or between two readings if subtracted."""

    elapsed: float = 0.0
    """Seconds since the first episode was asked for."""
    waiting: float = 0.0
    """Seconds in which the consumer waited for images: the host, which may be ahead of its GPU."""
    stalled: float = 0.0
    """Seconds in which the GPU's stream waited for images; known once the GPU has come that far."""
    decoding: float = 0.0
    """Thread seconds of reading and decoding, of the chunks that were received."""
    copying: float = 0.0
    """Seconds of copying to the GPU."""
    episodes: int = 0
    images: int = 0
    faults: int = 0
    """Samples that could not be read or decoded."""

    def __sub__(self, earlier: Stats) -> Stats:
        values = {f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)}
        return Stats(**values)

    @property
    def waiting_share(self) -> float:
        """The share of the elapsed time that was spent waiting, 0 to 1."""
        return self.waiting / self.elapsed if self.elapsed > 0 else 0.0

    @property
    def stalled_share(self) -> float:
        """The share of the elapsed time in which the GPU's stream waited for images, 0 to 1."""
        return self.stalled / self.elapsed if self.elapsed > 0 else 0.0

    def __str__(self) -> str:
        rate = self.images / self.elapsed if self.elapsed > 0 else 0.0
        faults = f", {self.faults:,} faulty" if self.faults else ""
        stalled = f", GPU stalled {self.stalled_share:.0%}" if self.stalled else ""
        return (
            f"{self.episodes:,} episodes, {self.images:,} images{faults}, {rate:,.0f} images/s, "
            f"waiting for data {self.waiting_share:.0%}{stalled}"
        )


@dataclass(kw_only=True, slots=True)
class LoaderMetrics:
    """The running counts behind `Stats`, kept by the consumer's thread, and the time of the first request."""

    begun: float | None = None
    waiting: float = 0.0
    stalled: float = 0.0
    decoding: float = 0.0
    copying: float = 0.0
    episodes: int = 0
    images: int = 0
    faults: int = 0

    def begin(self) -> None:
        """Start the clock, at the first episode that is asked for."""
        if self.begun is None:
            self.begun = time.perf_counter()

    def read(self) -> Stats:
        counted = asdict(self)
        begun = counted.pop("begun")
        return Stats(elapsed=0.0 if begun is None else time.perf_counter() - begun, **counted)
