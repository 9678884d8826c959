"""What a parquet file unpacks to, by the headers of its pages, before anything of it is unpacked.

Its footer says that too, but whoever writes a file for harm writes a small number there: 12 kB then become
gigabytes. Footer and page headers are structs of Thrift's compact protocol; pyarrow's own view of a footer
ends the process where a column lacks its description.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

FREE_ROWS: Final = 2**20  # a file of any size may have so many, and a larger one a row for each byte:
FREE_BYTES: Final = 2**26  # no honest row is smaller, as the crc32 of an image alone takes four bytes
UNPACK_RATIO: Final = 64  # unpacked bytes for each byte of a file, beyond FREE_BYTES; 1.5 are usual
DESCRIPTION_BYTES: Final = 2**25
"""Of footer and headers, without texts; those of ImageNet's index take 0.1 MB."""
TAIL_BYTES: Final = 8  # of a file: the length of its footer, and its last letters
NESTING: Final = 12  # structs and lists within one another at most; a footer has up to eight
VARINT_BITS: Final = 63
LAST_BYTE: Final = 128  # a byte below it is the last one of a number

TRUE, FALSE, BYTE, DOUBLE, BINARY, LIST, STRUCT = 1, 2, 3, 7, 8, 9, 12  # kinds of values
INTEGERS: Final = (4, 5, 6)
LONG_LIST: Final = 15  # the size that says: the size follows

# Numbers of fields, from the footer down to a page:
ROW_GROUPS: Final = 4
GROUP_COLUMNS, GROUP_ROWS = 1, 3
COLUMN_DESCRIPTION: Final = 3
STORED_COLUMN, DATA_PLACE, DICTIONARY_PLACE = 7, 9, 11
UNPACKED_PAGE, STORED_PAGE = 2, 3
PAGE_ENCODINGS: Final = ((5, 2), (7, 2), (8, 4))
"""Where an encoding stands: in the header of a data page, of a dictionary, of a data page of version 2."""
KNOWN_ENCODINGS: Final = frozenset({0, 2, 3, 8})
"""Plain, by dictionary (two numbers), run lengths. Others can make much of little, and no build uses them."""

ThriftFields: TypeAlias = "dict[int, Any]"
"""The values of a struct by number: int, list, or fields again; texts are left out."""


class ThriftReader:
    """Reads structs at a place in a file's bytes, and moves the place behind them. Raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0
        self._left = DESCRIPTION_BYTES

    def read_struct(self, depth: int = NESTING) -> ThriftFields:
        """Read the fields of a struct."""
        fields: ThriftFields = {}
        number = 0
        while kind := self._byte():
            number = number + (kind >> 4) if kind >> 4 else _signed(self._varint())
            flag = kind & 15 in (TRUE, FALSE)  # it stands in its kind, and takes no byte
            fields[number] = kind & 15 == TRUE if flag else self._value(kind & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in INTEGERS:
            return _signed(self._varint())
        if kind == BINARY:
            size = self._varint()
            self.place += size
        elif kind == DOUBLE:
            self.place += 8
        elif kind in (TRUE, FALSE, BYTE):
            self.place += 1
        elif kind == STRUCT and depth:
            return self.read_struct(depth - 1)
        elif kind == LIST and depth:
            about = self._byte()
            size = self._varint() if about >> 4 == LONG_LIST else about >> 4
            return [self._value(about & 15, depth - 1) for _ in range(size) if self._is_inside()]
        else:
            raise ValueError(f"there is a value of kind {kind} before byte {self.place:,}")
        return None

    def _is_inside(self) -> bool:
        if self.place >= len(self.data):
            raise ValueError("its descriptions go on beyond its end")
        return True

    def _byte(self) -> int:
        self._is_inside()
        self._left -= 1
        if not self._left:
            raise ValueError(f"its descriptions have more than {DESCRIPTION_BYTES:,} bytes")
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        number = 0
        for shift in range(0, VARINT_BITS + 1, 7):
            byte = self._byte()
            number |= (byte % LAST_BYTE) << shift
            if byte < LAST_BYTE:
                return number
        raise ValueError(f"a number before byte {self.place:,} has no end")


def check_expansion(data: bytes) -> None:
    """Raise ValueError if a parquet file unpacks to far more than it takes, or if its pages cannot be."""
    reader, stored = ThriftReader(data), len(data)
    length = int.from_bytes(data[-TAIL_BYTES : -TAIL_BYTES // 2], "little")
    if not 0 < length <= stored - TAIL_BYTES:
        raise ValueError(f"its footer has {length:,} bytes")
    reader.place = stored - TAIL_BYTES - length
    groups = _structs(reader.read_struct(), ROW_GROUPS)
    rows = sum(_size(group, GROUP_ROWS) for group in groups)
    if rows > max(FREE_ROWS, stored):
        raise ValueError(f"its {stored:,} bytes unpack to {rows:,} rows, more than one for each byte")
    columns = (_struct(c.get(COLUMN_DESCRIPTION)) for group in groups for c in _structs(group, GROUP_COLUMNS))
    pages = (page for column in columns for page in _page_headers(reader, column))
    unpacked = sum(_size(page, UNPACKED_PAGE) for page in pages)
    if unpacked > max(FREE_BYTES, UNPACK_RATIO * stored):
        raise ValueError(f"its {stored:,} bytes unpack to {unpacked:,}")


def _structs(fields: ThriftFields, number: int) -> list[ThriftFields]:
    """The structs of a list."""
    values = fields.get(number)
    return [_struct(value) for value in values] if isinstance(values, list) else [_struct(values)]


def _struct(value: object) -> ThriftFields:
    if isinstance(value, dict):
        return value
    raise ValueError("a column or a page has no description")


def _size(fields: ThriftFields, number: int) -> int:
    value = fields.get(number)
    if type(value) is not int or value < 0:
        raise ValueError(f"a size is {value}")
    return value


def _page_headers(reader: ThriftReader, column: ThriftFields) -> Iterator[ThriftFields]:
    """The headers of one column's pages in a row group."""
    place = _size(column, DATA_PLACE)
    if column.get(DICTIONARY_PLACE):
        place = min(place, _size(column, DICTIONARY_PLACE))
    end = place + _size(column, STORED_COLUMN)
    while place < end:
        reader.place = place
        header = reader.read_struct()
        for kind, field in PAGE_ENCODINGS:
            if _struct(header.get(kind, {field: 0})).get(field) not in KNOWN_ENCODINGS:
                raise ValueError(f"the page at byte {place:,} is encoded as no build writes it")
        yield header
        place = reader.place + _size(header, STORED_PAGE)


def _signed(number: int) -> int:
    return (number >> 1) ^ -(number & 1)
