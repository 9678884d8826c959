"""The code that all commands share: argument parsers, progress, one-line errors and exit codes."""

from __future__ import annotations

import logging
import os
import select
import signal
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import get_terminal_size
from types import FrameType
from typing import Final

from tqdm import tqdm

from pipeline.errors import PipelineError, UsageError, explain_os_error

EXIT_CODES: Final = """\
exit codes:
  0 all is well   1 unexpected failure   2 a request that makes no sense   3 source files missing
  4 damaged files   5 disk full   75 stopped half-way, run again   130 Ctrl-C, run again
"""
CTRL_C_EXIT_CODE: Final = 130


def command_parser(module: str, description: str, examples: str) -> ArgumentParser:
    """An argument parser whose help ends with examples and exit codes."""
    return ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=f"examples:\n{examples}\n{EXIT_CODES}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run_command(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run a command's main function, print its error as one line and return its exit code."""
    _open_missing_streams()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", force=True)
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.INFO, "note")
    with _interrupted_by_sigterm() as working:
        return _run_to_exit_code(main, argv, working)


@contextmanager
def _interrupted_by_sigterm() -> Iterator[list[bool]]:
    """SIGTERM is Ctrl-C while the list is not empty; later it ends nothing: the exit code is being chosen."""
    working = [True]

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if working:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield working
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _run_to_exit_code(
    main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None, working: list[bool]
) -> int:
    try:
        try:
            _require_utf8()
            return _flush_output(main(argv))
        finally:
            working.clear()
    except PipelineError as error:
        return _fail(error)
    except OSError as error:  # a failing disk or network
        if isinstance(error, BrokenPipeError) and _reader_has_gone():  # as with `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return _fail(explain_os_error(error))
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is finished is kept, run the same command to go on\n")
        return CTRL_C_EXIT_CODE


def _open_missing_streams() -> None:
    """Give a command that was started without an output or without errors (`>&-`) an empty one."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - for the process's life


def _require_utf8() -> None:
    """Raise UsageError where file names are not UTF-8: other names of classes would be other shards."""
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise UsageError(
            f"names of files are read as UTF-8 and this locale has them in {encoding}; set LC_ALL=C.UTF-8 or "
            "PYTHONUTF8=1 and run the command again"
        )


def _flush_output(code: int) -> int:
    """Write what Python has kept back: where that fails it fails here, and not after the exit code was chosen."""
    try:
        sys.stdout.flush()
    except OSError as error:
        error.filename = "the output of this command"
        raise
    return code


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), select.POLLOUT)
    except (OSError, AttributeError):  # not a file; a system without poll
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _fail(error: PipelineError) -> int:
    """Print the error as one line and return its exit code."""
    with suppress(OSError):  # the errors may go to the same full disk
        sys.stderr.write(f"error: {error}\n")
        sys.stderr.flush()
    return error.exit_code


LINE_SECONDS: Final = 30.0  # between two lines in a log


class ProgressBar:
    """A bar that counts samples in a terminal, and a line now and then in a log."""

    def __init__(self, title: str, total: int, *, quiet: bool = False, unit: str = "img") -> None:
        self._title, self._total, self._unit = title, total, unit
        self._done, self._note = 0, ""
        self._begin = self._last_line = time.monotonic()
        self._lines = not quiet and not sys.stderr.isatty()
        self._bar = tqdm(
            total=total,
            desc=title,
            unit=unit,
            disable=quiet or self._lines,
            ncols=get_terminal_size().columns,  # 80 where the terminal does not say
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, samples: int, note: str = "") -> None:
        """Count samples as done; `note` is text to show beside the count."""
        self._done += samples
        self._bar.update(samples)
        if note != self._note:
            self._note = note
            self._bar.set_postfix_str(note)
        now = time.monotonic()
        if self._lines and (now - self._last_line >= LINE_SECONDS):
            self._last_line = now
            sys.stderr.write(self.line(now - self._begin) + "\n")
            sys.stderr.flush()

    def line(self, seconds: float) -> str:
        """The progress after so many seconds, as one line for a log."""
        rate = self._done / max(seconds, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        share = 100 * self._done / max(self._total, 1)
        return (
            f"{self._title}: {self._done:,}/{self._total:,} ({share:.0f} %), {rate:,.0f} {self._unit}/s, "
            f"{left:,.0f} s left{', ' + self._note if self._note else ''}"
        )
