"""How long a loader made its consumer wait, and what for."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """Counts and seconds since the loader was opened, or between two readings if subtracted."""

    elapsed: float = 0.0
    """Seconds since the first episode was asked for."""
    waiting: float = 0.0
    """Seconds in which the consumer had nothing to do because its pixels were not there yet."""
    decoding: float = 0.0
    """Thread seconds of reading and decoding, of the chunks that were taken."""
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
        """Of the elapsed time, 0 to 1."""
        return self.waiting / self.elapsed if self.elapsed > 0 else 0.0

    def __str__(self) -> str:
        rate = self.images / self.elapsed if self.elapsed > 0 else 0.0
        faults = f", {self.faults:,} faulty" if self.faults else ""
        return (
            f"{self.episodes:,} episodes, {self.images:,} images{faults}, {rate:,.0f} images/s, "
            f"waiting for data {self.waiting_share:.0%}"
        )


@dataclass(kw_only=True, slots=True)
class Meter:
    """What the consumer's thread counts: the fields of `Stats`, and when it began."""

    begun: float | None = None
    waiting: float = 0.0
    decoding: float = 0.0
    copying: float = 0.0
    episodes: int = 0
    images: int = 0
    faults: int = 0

    def begin(self) -> None:
        """The consumer asks for an episode; elapsed time counts from the first."""
        if self.begun is None:
            self.begun = time.perf_counter()

    def read(self) -> Stats:
        counted = asdict(self)
        begun = counted.pop("begun")
        return Stats(elapsed=0.0 if begun is None else time.perf_counter() - begun, **counted)
