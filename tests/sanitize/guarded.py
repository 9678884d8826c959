"""Memory that ends where a page begins which cannot be touched."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

PAGE: Final = mmap.PAGESIZE
PROT_NONE: Final = 0


class GuardedMemory:
    """Up to so many bytes; a read or write behind them ends the process."""

    def __init__(self, most: int) -> None:
        pages = -(-most // PAGE)
        self._map = mmap.mmap(-1, (pages + 1) * PAGE)
        self._size = pages * PAGE
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mprotect(ctypes.c_void_p(start + self._size), ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError(ctypes.get_errno(), "mprotect")

    def holding(self, data: bytes) -> memoryview:
        """The bytes, directly before the guard; they stay until the next call."""
        view = self.of(len(data))
        view[:] = data
        return view

    def of(self, length: int) -> memoryview:
        """So many bytes directly before the guard, as they are."""
        return memoryview(self._map)[self._size - length : self._size]
