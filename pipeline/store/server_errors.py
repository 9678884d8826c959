"""What goes wrong with servers: which failures another try may mend, which are final, which are shared."""

from __future__ import annotations

import asyncio
import threading
from typing import Final

from pipeline.errors import IntegrityError, SourceMissing, first_line

HTTP_GONE: Final = (404, 410)
HTTP_DENIED: Final = (401, 403)
HTTP_ERROR: Final = 400  # and above: the request was not answered
HTTP_SERVER_ERROR: Final = 500  # and above: the server's own, which may pass
HTTP_RETRYABLE: Final = (408, 425, 429)  # the only refusals that another try may change
HTTP_RANGE_INVALID: Final = 416  # the file ends before the range


class RemoteFileMissing(SourceMissing):
    """The server says that there is no such file."""


class AnswerTooLong(Exception):
    """More bytes came than were asked for; the rest was not read."""

    def __init__(self, limit: int, came: int) -> None:
        super().__init__(f"{came:,} bytes, or more, came where {limit:,} are the limit")
        self.came = came


def check_length(came: int, limit: int) -> None:
    """Raise AnswerTooLong for an answer of more than `limit` bytes."""
    if came > limit:
        raise AnswerTooLong(limit, came)


class ServerOutages:
    """How often requests to each server were given up, and why the last one was."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[str, tuple[int, str]] = {}
        """By server: how many there were, and the last one's message."""

    def number(self, server: str) -> int:
        """How many there were so far."""
        return self._last.get(server, (0, ""))[0]

    def add(self, server: str, message: str) -> None:
        with self._lock:
            self._last[server] = (self.number(server) + 1, message)

    def raise_later_than(self, server: str, known: int) -> None:
        """Raise SourceMissing if there were more than `known`."""
        number, message = self._last.get(server, (0, ""))
        if number > known:
            raise SourceMissing(message)


def describe_failure(error: Exception, what: str, timeout: float) -> str:
    """A few words on a failed try. Raises SourceMissing or IntegrityError when no other try can help."""
    status = getattr(error, "status" if hasattr(error, "status") else "code", None)
    text = printable(first_line(error))
    place = what.rstrip(",")
    if isinstance(error, FileNotFoundError) or status in HTTP_GONE:
        raise RemoteFileMissing(f"{what} is not there; was the shard set moved or built anew?") from error
    if isinstance(error, PermissionError) or status in HTTP_DENIED:
        raise SourceMissing(
            f"{place}: access denied ({text}); give credentials, in the environment or as options"
        ) from error
    if status == HTTP_RANGE_INVALID:
        raise IntegrityError(f"{place}: the file ends before that ({text})") from error
    if isinstance(status, int) and HTTP_ERROR <= status < HTTP_SERVER_ERROR and status not in HTTP_RETRYABLE:
        raise SourceMissing(f"{place}: the server refuses ({text})") from error
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return f"no answer in {timeout:g} s"
    return f"{type(error).__name__} {status or text}"


def printable(text: str) -> str:
    """A server's text without what a terminal would obey or could not write."""
    return "".join(character if character.isprintable() else "?" for character in text)
