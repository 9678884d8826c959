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

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

LONGEST_LINE: Final = 160  # characters of another library's error
FIRST_FEW: Final = 5  # names that a message lists; it counts the others
FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""The system's errors of a full disk, a used-up quota, and a limit on the size of files."""
FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
"""The system's errors of rights, and of a read-only disk."""
OTHER_PATH: Final = frozenset(
    {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP}
)
"""The system's errors of a path that cannot name what it should."""
OPEN_FILE_LIMIT: Final = frozenset({errno.EMFILE, errno.ENFILE})


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


def explain_os_error(error: OSError) -> PipelineError:
    """The error of the system as one of ours: its exit code, and what to do.

    This is the one rule by which all commands turn a failing disk or network into an exit code.
    """
    what = "".join([str(error), *(f" ({note})" for note in getattr(error, "__notes__", ()))])
    if error.errno in FULL_DISK:
        return OutOfSpace(
            f"no space left: {what}; what is finished is kept, free some and run the command again"
        )
    if error.errno in FORBIDDEN:
        return UsageError(f"not allowed: {what}; name another folder, or give this user the right to it")
    if error.errno in OTHER_PATH:
        return UsageError(f"{what}; name another path")
    if error.errno == errno.ENOENT:
        return SourceMissing(f"{what}; it is needed, and its name is wrong or it was removed: put it back")
    if error.errno in OPEN_FILE_LIMIT:
        return RunInterrupted(f"{what}; raise the limit (ulimit -n) or take fewer workers, and run it again")
    return RunInterrupted(f"{what}; what is finished is kept, run the command again")


@contextmanager
def full_disk_is(sentence: str) -> Iterator[None]:
    """Raise OutOfSpace with this sentence where the block meets a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise OutOfSpace(f"{sentence} ({error})") from error


@contextmanager
def errors_about(path: object) -> Iterator[None]:
    """Add the path to the system's errors within the block: those of reads and syncs name no file."""
    try:
        yield
    except OSError as error:
        add_file_name(error, path)
        raise


def add_file_name(error: OSError, path: object) -> None:
    """Add the path to an error of a write or a sync, which does not have it."""
    if error.errno is not None and error.filename is None:
        error.filename = str(path)


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
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}..."
