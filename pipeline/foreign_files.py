"""Files that may come from a stranger: opened without waiting, read up to a limit."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import IO, Final

from pipeline.constants import READ_BLOCK

READ_FLAGS: Final = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)
"""A pipe opens at once (and is then refused) instead of waiting for a writer; files are read as ever."""


class UnfitFileError(OSError):
    """A folder, a pipe or a device where a file is needed, or a file beyond the limit of its reader."""


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file to read its bytes. Raises UnfitFileError for anything else, OSError as `open`."""
    handle = os.open(path, READ_FLAGS)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return os.fdopen(handle, "rb", READ_BLOCK)
    os.close(handle)
    raise UnfitFileError(errno.EINVAL, "is no regular file", str(path))


def read_regular(path: Path, most: int) -> bytes:
    """Read a whole file of up to `most` bytes. Raises UnfitFileError, OSError as `open`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise UnfitFileError(
                errno.EOVERFLOW, f"has {size:,} bytes, and {most:,} are the limit", str(path)
            )
        try:
            return file.read(size)
        except OSError as error:
            error.filename = str(path)  # which the system's error of a read does not have
            raise
