"""Changes of bytes that break parsers: the engine where atheris is not installed, and help for targets' own."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable
from typing import Final

LONGEST_INPUT: Final = 1 << 18  # bytes; slow inputs would hide the many small ones
ROUNDS: Final = 4  # changes of one input, at most
NUMBERS: Final = (
    0,
    1,
    2,
    7,
    8,
    9,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
)
WIDE_NUMBERS: Final = (*NUMBERS, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
TEXTS: Final = (
    b"",
    b"-1",
    b"0",
    b"1e999",
    b"99999999999999999999",
    b"NaN",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"..",
    b"/",
)
DIGITS: Final = re.compile(rb"\d+")


def mutate_bytes(data: bytes, generator: random.Random) -> bytes:
    """A changed copy: flipped, cut, doubled, overwritten by extreme numbers, now and then by nothing but noise."""
    for _ in range(generator.randint(1, ROUNDS)):
        data = generator.choice(CHANGES)(data, generator)
    return data[:LONGEST_INPUT]


def _flip(data: bytes, generator: random.Random) -> bytes:
    if not data:
        return generator.randbytes(8)
    place = generator.randrange(len(data))
    return data[:place] + bytes([data[place] ^ (1 << generator.randrange(8))]) + data[place + 1 :]


def _replace_byte(data: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(data) + 1)
    return data[:place] + generator.randbytes(1) + data[place + 1 :]


def _cut(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data) + 1)]


def _span(data: bytes, generator: random.Random) -> tuple[int, int]:
    begin = generator.randrange(len(data) + 1)
    return begin, min(len(data), begin + generator.choice((1, 2, 4, 8, 16, 64, 512, len(data))))


def _remove(data: bytes, generator: random.Random) -> bytes:
    begin, end = _span(data, generator)
    return data[:begin] + data[end:]


def _repeat(data: bytes, generator: random.Random) -> bytes:
    begin, end = _span(data, generator)
    return data[:end] + data[begin:end] * generator.choice((1, 1, 2, 16)) + data[end:]


def _move(data: bytes, generator: random.Random) -> bytes:
    begin, end = _span(data, generator)
    place = generator.randrange(len(data) + 1)
    return data[:place] + data[begin:end] + data[place + (end - begin) * generator.randrange(2) :]


def _number(data: bytes, generator: random.Random) -> bytes:
    width = generator.choice("BHIQ")
    value = generator.choice(WIDE_NUMBERS) % (1 << 8 * struct.calcsize(width))
    number = struct.pack(generator.choice("<>") + width, value)
    place = generator.randrange(len(data) + 1)
    return data[:place] + number + data[place + len(number) :]


def _written_number(data: bytes, generator: random.Random) -> bytes:
    digits = list(DIGITS.finditer(data))
    if not digits:
        return _number(data, generator)
    match = generator.choice(digits)
    number = generator.choice((*TEXTS, *(str(value).encode() for value in WIDE_NUMBERS)))
    return data[: match.start()] + number + data[match.end() :]


def _insert(data: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(data) + 1)
    return (
        data[:place]
        + generator.choice((*TEXTS, generator.randbytes(generator.randint(1, 16))))
        + data[place:]
    )


CHANGES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _flip, _flip, _replace_byte, _cut, _remove, _repeat, _move, _number, _number, _written_number, _insert,
)  # fmt: skip
