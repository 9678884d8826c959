"""The exceptions that a user can meet, each with the exit code that the commands return for it.

    PipelineError            1   the base of all below
    ├── UsageError           2   the request contradicts itself
    ├── SourceMissing        3   files that are needed are not there
    ├── IntegrityError       4   files are there and are not what they should be
    ├── OutOfSpace           5   the disk is full
    └── RunInterrupted      75   stopped half-way; the same command continues the work

A message says what was needed, what was found and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

LONGEST_LINE: Final = 160  # characters of another library's error
FIRST_FEW: Final = 5  # names that a message lists; it counts the others


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


class RunInterrupted(PipelineError):
    exit_code = 75


def check_choice(value: object, choices: Sequence[object], what: str) -> None:
    """Raise UsageError for a value that is none of the choices."""
    if value not in choices:
        raise UsageError(f"{what} is one of {', '.join(map(str, choices))}; got {value!r}")


def first_few(names: Sequence[object], separator: str = ", ") -> str:
    """The first names and how many more there are: a thousand names would hide the sentence."""
    more = f"{separator.rstrip(', ')} and {len(names) - FIRST_FEW:,} more"
    listed = separator.join(map(str, names[:FIRST_FEW]))
    return listed + (more if len(names) > FIRST_FEW else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, shortened: libraries put pages behind it."""
    text = (str(error) or type(error).__name__).strip().splitlines()[0]
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."
