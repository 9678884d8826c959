"""The failures a user can meet, each with the exit code the commands return for it.

    PipelineError            1   anything below, as one type
    ├── UsageError           2   the request contradicts itself
    ├── SourceMissing        3   files that are needed are not there
    ├── IntegrityError       4   files are there and are not what they should be
    ├── OutOfSpace           5   the disk is full
    └── Interrupted         75   stopped half-way; the same command goes on from here

A message says what was needed, what was found and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class PipelineError(Exception):
    exit_code = 1


class UsageError(PipelineError):
    exit_code = 2


class SourceMissing(PipelineError):
    exit_code = 3


class IntegrityError(PipelineError):
    exit_code = 4


class OutOfSpace(PipelineError):
    exit_code = 5


class Interrupted(PipelineError):
    exit_code = 75


def check_choice(value: object, choices: Sequence[object], what: str) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise UsageError(f"{what} is one of {', '.join(map(str, choices))}; got {value!r}")


def few(names: Sequence[object], most: int = 5) -> str:
    """The first names, and how many more: a thousand of them would hide the sentence."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more
