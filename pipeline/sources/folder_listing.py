"""Lists the files of a folder: where the bytes of each lie, or why it is left out.

Links are followed, as people put datasets together with them; each folder is listed once, so that links
that lead in circles end. Pipes, sockets and devices are never opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.sources.spans import FileSpan, span_file, unreadable_reason

A_FOLDER: Final = "a folder, where files are expected"


def entry_span(entry: os.DirEntry[str], file: str) -> FileSpan | str:
    """The span of a folder's entry, whose path relative to the source's root is `file`; or a reason."""
    try:
        found = entry.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and entry.is_symlink():
            return "a link to a file that is not there"
        return unreadable_reason(error)
    if stat.S_ISDIR(found.st_mode):
        return A_FOLDER
    if not stat.S_ISREG(found.st_mode):
        return "not a regular file (pipe, socket or device), not read"
    return FileSpan(span_file(file), 0, found.st_size, "whole")


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a folder's entry is a folder or leads to one; a link to itself does not."""
    try:
        return entry.is_dir()
    except OSError as error:
        unreadable_reason(error)
        return False


def list_folder(folder: Path, relative: str = "") -> Iterator[tuple[os.DirEntry[str], FileSpan | str]]:
    """Yield each entry of a folder, sorted by name, and its span or why it has none.

    relative: path of the folder from the source's root.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        yield entry, entry_span(entry, _joined(relative, entry.name))


def walk_folder(root: Path, relative: str = "") -> Iterator[tuple[str, FileSpan | str]]:
    """Yield the path of each file below a folder, in no order, and its span or why it has none.

    Links to folders come after all folders, and only where they lead to one that is not listed yet.
    """
    folders, links = [""], list[str]()
    listed: dict[tuple[int, int], str] = {}
    while folders or links:
        is_link = not folders
        here = links.pop(0) if is_link else folders.pop()
        try:
            found = (root / here).stat()
            first = listed.setdefault((found.st_dev, found.st_ino), here)
            if is_link and first != here:
                yield here, f"a link to a folder that is listed already ({first or 'the source itself'})"
                continue
            entries = list(list_folder(root / here, _joined(relative, here)))
        except OSError as error:
            yield here, f"the folder {unreadable_reason(error)}"
            continue
        for entry, span in entries:
            path = _joined(here, entry.name)
            if span == A_FOLDER:
                (links if entry.is_symlink() else folders).append(path)
            else:
                yield path, span


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
