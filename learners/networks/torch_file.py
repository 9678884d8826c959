"""Tensors in a file that `torch.save` wrote, as a zip archive or, before torch 1.6, as pickles in a row."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from learners.networks.inert_pickle import StoredNumbers, StoredTensor, read_pickle

ZIP_BEGINS: Final = b"PK\x03\x04"
PICKLE_BYTES: Final = 16 << 20  # of a pickle without its numbers; that of a large network has 1 MB
OLD_MAGIC: Final = 0x1950A86A20F9469CFC6C  # of the format before torch 1.6
OLD_PROTOCOL: Final = 1001
COUNT_BYTES: Final = 8  # before the numbers of an old file: how many they are


class TorchFile:
    """The values in a file of torch's, with a `StoredTensor` for each tensor; `load` reads one.

    Whatever is wrong with a file is a ValueError. Memory is bounded by the size of the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size
        self._rows: dict[str, Tensor] = {}
        self._old_places: dict[str, int] = {}
        self._archive: zipfile.ZipFile | None = None
        self._folder = ""
        try:
            self.values: Any = self._read_zip() if self._file.read(4) == ZIP_BEGINS else self._read_old()
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> TorchFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def load(self, stored: StoredTensor) -> Tensor:
        """One tensor; those of one storage share memory, as they did when they were saved."""
        dtype = getattr(torch, stored.numbers.dtype)
        if stored.numbers.key not in self._rows:
            data = bytearray(self._numbers(stored.numbers, dtype))
            empty = torch.empty(0, dtype=dtype)
            self._rows[stored.numbers.key] = torch.frombuffer(data, dtype=dtype) if data else empty
        row = self._rows[stored.numbers.key]
        if row.dtype != dtype or len(row) < stored.numbers.length:
            raise ValueError(f"the storage {stored.numbers.key} has {len(row):,} numbers of {row.dtype}")
        if 0 in stored.size:
            return row.new_empty(stored.size)
        return row.as_strided(stored.size, stored.stride, stored.offset)

    def _read_zip(self) -> Any:
        """Read the pickle of a zip archive, whose members are stored as they are."""
        try:
            self._archive = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, NotImplementedError, struct.error, EOFError, OverflowError) as error:
            raise ValueError(f"it is no whole zip archive: {error}") from error
        members = self._archive.infolist()
        if sum(member.file_size for member in members) > self._size:
            raise ValueError("its members are larger than the file; torch does not compress them")
        if not all(0 <= member.header_offset < self._size for member in members):
            raise ValueError("its members lie outside the file")
        pickles = [member.filename for member in members if member.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} files named data.pkl instead of one")
        self._folder = pickles[0].removesuffix("data.pkl")
        if f"{self._folder}byteorder" in self._archive.NameToInfo:
            self._check_order(self._member("byteorder") == b"little")
        return read_pickle(io.BytesIO(self._member("data.pkl", PICKLE_BYTES)))

    def _member(self, name: str, limit: int | None = None) -> bytes:
        """A member's bytes, whose checksum fits."""
        assert self._archive is not None
        try:
            member = self._archive.getinfo(self._folder + name)
            if limit is not None and member.file_size > limit:
                raise ValueError(f"{name} has {member.file_size:,} bytes, and {limit:,} are the limit")
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed, which torch does not do")
            return self._archive.read(member)
        except KeyError:
            raise ValueError(f"it lacks the member {name}") from None
        except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OverflowError) as error:
            raise ValueError(f"{name} is damaged: {error}") from error

    def _read_old(self) -> Any:
        """Read the pickles at the beginning of an old file, and where the numbers behind them lie."""
        self._file.seek(0)
        stream = io.BytesIO(self._file.read(PICKLE_BYTES))
        first = read_pickle(stream)
        if first != OLD_MAGIC or read_pickle(stream) != OLD_PROTOCOL:
            raise ValueError("it is no file that torch.save wrote")
        system = read_pickle(stream)
        self._check_order(isinstance(system, Mapping) and system.get("little_endian") is True)
        values, keys = read_pickle(stream), read_pickle(stream)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("it does not list its storages")
        widths = _widths(values)
        place = stream.tell()
        for key in keys:
            if key not in widths:
                raise ValueError(f"its storage {key!r:.40} belongs to no tensor")
            self._old_places[key] = place
            self._file.seek(place)
            count = int.from_bytes(self._file.read(COUNT_BYTES), "little")
            place += COUNT_BYTES + count * widths[key]
            if place > self._size:
                raise ValueError(f"it ends before the numbers of {key!r:.40} do")
        return values

    def _numbers(self, numbers: StoredNumbers, dtype: torch.dtype) -> bytes:
        """The bytes of a storage."""
        if self._archive is not None:
            return self._member(f"data/{numbers.key}")
        if numbers.key not in self._old_places:
            raise ValueError(f"it lacks the storage {numbers.key!r:.40}")
        self._file.seek(self._old_places[numbers.key])
        count = int.from_bytes(self._file.read(COUNT_BYTES), "little")
        if count != numbers.length:
            raise ValueError(
                f"the storage {numbers.key!r:.40} has {count:,} numbers and not {numbers.length:,}"
            )
        return self._file.read(count * dtype.itemsize)

    @staticmethod
    def _check_order(little: bool) -> None:  # noqa: FBT001
        if not little:
            raise ValueError("its numbers are in another order of bytes than this computer's")


def _widths(values: Any) -> dict[str, int]:
    """Bytes of a number, for each storage that a tensor in nested values belongs to."""
    widths: dict[str, int] = {}
    waiting, seen = [values], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, StoredTensor | StoredNumbers):
            numbers = value.numbers if isinstance(value, StoredTensor) else value
            widths[numbers.key] = getattr(torch, numbers.dtype).itemsize
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))  # values may hold themselves
            waiting += value.values() if isinstance(value, dict) else value
    return widths
