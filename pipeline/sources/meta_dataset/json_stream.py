"""Reads a large JSON object entry by entry: its lists are never in memory as a whole."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Final, NoReturn

from pipeline.constants import READ_BLOCK
from pipeline.errors import IntegrityError

JSON_SPACE: Final = " \t\n\r"
ENTRY_LIMIT: Final = 64 * READ_BLOCK  # characters of one entry; COCO's largest has some 100,000


def list_entries(stream: IO[bytes]) -> Iterator[tuple[str, object]]:
    """Yield the key and each entry of the lists in the outermost object, in the order of the file.

    >>> import io
    >>> list(list_entries(io.BytesIO(b'{"info": {"year": 2017}, "images": [{"id": 1}, {"id": 2}]}')))
    [('images', {'id': 1}), ('images', {'id': 2})]
    """
    text = _JsonText(stream)
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


class _JsonText:
    """A window of the text: the part that is being parsed."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._read = codecs.getreader("utf-8")(stream).read
        self._decoder = json.JSONDecoder()
        self._buffer, self._position, self._gone, self._ended = "", 0, 0, False

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self._position < len(self._buffer):
                if self._buffer[self._position] not in JSON_SPACE:
                    return self._buffer[self._position]
                self._position += 1
            if not self._read_more():
                return ""

    def expect(self, character: str) -> None:
        """Skip a character that must be next."""
        if self.peek() != character:
            self._fail(f"{character!r} is needed and {self.peek() or 'the end'!r} found")
        self._position += 1

    def entries(self, closing: str) -> Iterator[None]:
        """Yield before each entry of a list or object, which the caller then reads, up to `closing`."""
        first = True
        while self.peek() != closing:
            if not first:
                self.expect(",")
            first = False
            yield
        self.expect(closing)

    def value(self) -> object:
        """Parse the next value."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
            except RecursionError:
                self._fail("an entry is nested too deeply")
            except json.JSONDecodeError as error:
                if len(self._buffer) - self._position > ENTRY_LIMIT:
                    self._fail(f"an entry has more than {ENTRY_LIMIT:,} characters")
                if not self._read_more():
                    self._fail(error.msg)
                continue
            if end < len(self._buffer) or not self._read_more():  # else a number may continue
                self._position = end
                return value

    def _read_more(self) -> bool:
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

    def _fail(self, problem: str) -> NoReturn:
        position = self._gone + self._position
        raise IntegrityError(f"is no JSON, or cut off: at character {position:,} {problem}")
