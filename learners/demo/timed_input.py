"""What a browser sends, with a limit on the time of a whole request, however slowly its bytes come."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from socket import socket
from typing import Any, Final

IDLE_SECONDS: Final = 60  # without a byte, after which a connection is closed


class TimedInput(io.RawIOBase):
    """The bytes of one connection; a read that goes beyond the time limit raises TimeoutError."""

    def __init__(self, connection: socket, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._connection, self._clock = connection, clock
        self._end = math.inf

    def limit(self, seconds: float) -> None:
        """Let reads go on for so long from now."""
        self._end = self._clock() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - self._clock()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(min(left, IDLE_SECONDS))
        return self._connection.recv_into(buffer)
