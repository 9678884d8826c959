"""Files that grow line by line."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from pipeline.errors import errors_about


class LineWriter:
    """Appends lines to a file, each one written out at once; errors name the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        """Append a line."""
        with errors_about(self._path):
            self._file.write(f"{line}\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; the rest of a line that could not be written was said when it failed."""
        with suppress(OSError):
            self._file.close()
