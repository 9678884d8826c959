"""What a disk may hold after a power cut, from the log of a command's I/O calls.

A cut loses any part of what was not yet synced, in any order: the bytes of a file since its last fsync, and
names (creations, renames, links, removals, folders) since the last fsync of their folder. That is more than
journalling file systems lose, so that what survives here survives on them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

from tests.faults.io_shim import LoggedCall

CutStyle = Literal["all of it", "bytes only", "names only", "some of it"]
CUT_STYLES: Final[tuple[CutStyle, ...]] = ("all of it", "bytes only", "names only", "some of it")
"""What a cut loses of that which was not synced."""


@dataclass(eq=False, slots=True)
class LostFile:
    """A file or a folder in the model; names point to it."""

    folder: bool = False
    data: bytearray = field(default_factory=bytearray)


class DiskChange(NamedTuple):
    """One change, and the place whose fsync makes it durable."""

    file: LostFile | None
    """None: the name is removed."""
    name: str = ""
    """A name that now means `file`; empty: bytes of the file were written."""
    old_name: str = ""
    """The name that a rename takes away."""
    offset: int = 0
    data: bytes = b""


class CrashModel:
    """Follows a log and knows, at any call of it, what is durable."""

    def __init__(self, calls: Sequence[LoggedCall], root: Path) -> None:
        self.root = root
        self._changes: list[tuple[int, DiskChange, int]] = []
        """The call that made a change, the change, and the call that made it durable (the end: none did)."""
        self._end = len(calls)
        self._files: dict[int, LostFile] = {}
        """By inode number, as it is used at the moment."""
        self._names: dict[str, LostFile] = {}
        self._open: list[tuple[int, DiskChange]] = []
        for number, call in enumerate(calls):
            if call.result >= 0:
                self._follow(number, call)
        self._changes += [(made, change, self._end) for made, change in self._open]

    def after_cut(self, call: int, style: CutStyle, seed: int) -> Iterator[tuple[str, bytes | None]]:
        """The paths, folders (None) before their contents, that are there after a cut just before a call."""
        dice = random.Random(seed)
        names: dict[str, LostFile] = {}
        contents: dict[LostFile, bytearray] = {}
        for made, change, synced in sorted(self._changes, key=lambda entry: entry[0]):
            if made < call and (synced < call or _survives(change, style, dice)):
                _apply(change, names, contents)
        for path in sorted(names):
            parents = (str(parent) for parent in Path(path).parents)
            if all(parent in names for parent in parents if len(parent) > len(str(self.root))):
                yield path, None if names[path].folder else bytes(contents.get(names[path], b""))

    def _follow(self, number: int, call: LoggedCall) -> None:
        match call.kind:
            case "create" if call.path not in self._names:
                self._files[call.inode] = self._names[call.path] = LostFile()
                self._open.append((number, DiskChange(self._names[call.path], call.path)))
            case "mkdir":
                self._names[call.path] = LostFile(folder=True)
                self._open.append((number, DiskChange(self._names[call.path], call.path)))
            case "write":
                self._open.append(
                    (number, DiskChange(self._files[call.inode], offset=call.offset, data=call.data))
                )
            case "rename" | "link":
                file = self._names[call.other] = self._names[call.path]
                old = call.path if call.kind == "rename" else ""
                self._names.pop(old, None)
                self._open.append((number, DiskChange(file, call.other, old)))
            case "unlink" | "rmdir":
                del self._names[call.path]
                self._open.append((number, DiskChange(None, call.path)))
            case "fsync":
                self._sync(number, call.path)

    def _sync(self, number: int, path: str) -> None:
        file, still_open = self._names.get(path), []
        for made, change in self._open:
            durable = str(Path(change.name).parent) == path if change.name else change.file is file
            if durable:
                self._changes.append((made, change, number))
            else:
                still_open.append((made, change))
        self._open = still_open


def _survives(change: DiskChange, style: CutStyle, dice: random.Random) -> bool:
    if style == "some of it":
        return dice.random() < 0.5
    return style == ("bytes only" if change.name else "names only")


def _apply(change: DiskChange, names: dict[str, LostFile], contents: dict[LostFile, bytearray]) -> None:
    if change.file is None:
        names.pop(change.name, None)
    elif change.name:
        names.pop(change.old_name, None)
        names[change.name] = change.file
    else:
        data = contents.setdefault(change.file, bytearray())
        data.extend(bytes(max(0, change.offset - len(data))))
        data[change.offset : change.offset + len(change.data)] = change.data
