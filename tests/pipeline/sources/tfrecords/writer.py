"""TFRecords and Examples written byte by byte, sharing nothing with the reader under test."""

from __future__ import annotations

import struct


def slow_crc(data: bytes) -> int:
    """CRC-32C bit by bit, as its definition says."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


def masked(part: bytes) -> bytes:
    crc = slow_crc(part)
    return struct.pack("<L", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32)


def framed(data: bytes) -> bytes:
    """One record of a TFRecord file."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value: int) -> bytes:
    value %= 2**64
    groups = bytearray()
    while value >= 0x80:
        groups.append(value % 0x80 + 0x80)
        value //= 0x80
    return bytes([*groups, value])


def delimited(number: int, contents: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(contents)) + contents


def bytes_feature(*values: bytes) -> bytes:
    return delimited(1, b"".join(delimited(1, value) for value in values))


def packed_integers(*values: int) -> bytes:
    return delimited(3, delimited(1, b"".join(map(varint, values))))


def example(**features: bytes) -> bytes:
    entries = (delimited(1, name.encode()) + delimited(2, f) for name, f in features.items())
    return delimited(1, b"".join(delimited(1, entry) for entry in entries))
