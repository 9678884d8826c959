"""How far a long run is: a bar on a terminal, a line every 30 seconds elsewhere, nothing if quiet."""

from __future__ import annotations

import sys
import time
from shutil import get_terminal_size
from typing import Final

from tqdm import tqdm

LINE_SECONDS: Final = 30.0


class Progress:
    """Counts samples; `note` shows what else is worth knowing."""

    def __init__(self, title: str, total: int, *, quiet: bool = False, unit: str = "img") -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done, self._note = 0, ""
        self._begin = self._last_line = time.monotonic()
        self._lines = not quiet and not sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=title,
            unit=unit,
            disable=quiet or self._lines,
            ncols=get_terminal_size().columns,  # 80 where the terminal does not say
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, samples: int, note: str = "") -> None:
        """So many more are done."""
        self._done += samples
        self._bar.update(samples)
        if note != self._note:
            self._note = note
            self._bar.set_postfix_str(note)
        now = time.monotonic()
        if self._lines and (now - self._last_line >= LINE_SECONDS):
            self._last_line = now
            sys.stderr.write(self.line(now - self._begin) + "\n")
            sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """One line for a log."""
        rate = self._done / max(seconds, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        share = 100 * self._done / max(self._total, 1)
        return (
            f"{self._title}: {self._done:,}/{self._total:,} ({share:.0f} %), {rate:,.0f} {self._unit}/s, "
            f"{left:,.0f} s left{', ' + self._note if self._note else ''}"
        )
