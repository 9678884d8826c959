"""One temporary file for the inputs of targets whose parsers read files; thousands a second go through it."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from pathlib import Path


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="fuzz-file-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def written(data: bytes, name: str = "input") -> Path:
    """A file that holds the input."""
    path = _folder() / name
    path.write_bytes(data)
    return path
