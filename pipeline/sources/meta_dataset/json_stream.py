"""A large JSON object, read entry by entry: its lists never stand in memory as a whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Final

from pipeline.constants import READ_BLOCK
from pipeline.errors import IntegrityError

SPACE: Final = " \t\n\r"


def list_entries(stream: IO[bytes]) -> Iterator[tuple[str, object]]:
    """Key and entry for every entry of the lists of the outermost object, in the order of the file.

    >>> import io
    >>> list(list_entries(io.BytesIO(b'{"info": {"year": 2017}, "images": [{"id": 1}, {"id": 2}]}')))
    [('images', {'id': 1}), ('images', {'id': 2})]
    """
    text = _Text(stream)
    text.expect("{")
    for _ in text.entries("}"):
        key = text.value()
        text.expect(":")
        if text.peek() != "[":
            text.value()
            continue
        text.expect("[")
        for _ in text.entries("]"):
            yield str(key), text.value()


class _Text:
    """The part of the text that is needed at the moment."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._read = codecs.getreader("utf-8")(stream).read
        self._decoder = json.JSONDecoder()
        self._buffer, self._position, self._gone, self._ended = "", 0, 0, False

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._position < len(self._buffer):
                if self._buffer[self._position] not in SPACE:
                    return self._buffer[self._position]
                self._position += 1
            if not self._more():
                return ""

    def expect(self, character: str) -> None:
        """Pass over a character that must be next."""
        if self.peek() != character:
            self._fail(f"{character!r} is needed and {self.peek() or 'the end'!r} found")
        self._position += 1

    def entries(self, closing: str) -> Iterator[None]:
        """Comes to each entry of a list or object, which the caller then reads, up to its bracket."""
        first = True
        while self.peek() != closing:
            if not first:
                self.expect(",")
            first = False
            yield
        self.expect(closing)

    def value(self) -> object:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except json.JSONDecodeError as error:
                if not self._more():
                    self._fail(error.msg)
                continue
            if end < len(self._buffer) or not self._more():  # else a number may go on
                self._position = end
                return value

    def _more(self) -> bool:
        if self._ended:
            return False
        try:
            block = self._read(READ_BLOCK)
        except UnicodeDecodeError as error:
            self._fail(str(error))
        self._gone += self._position
        self._buffer, self._position = self._buffer[self._position :] + block, 0
        self._ended = not block
        return not self._ended

    def _fail(self, problem: str) -> None:
        place = self._gone + self._position
        raise IntegrityError(f"is no JSON, or cut off: at character {place:,} {problem}")
