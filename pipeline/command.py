"""What all commands share: errors become one line and an exit code, never a traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Final, NoReturn

from pipeline.errors import Interrupted, PipelineError

EXIT_CODES: Final = """\
exit codes:
  0 all is well   1 unexpected failure   2 a request that makes no sense   3 source files missing
  4 damaged files   5 disk full   75 stopped half-way, run again   130 Ctrl-C, run again
"""
CTRL_C: Final = 130


def parser(module: str, description: str, examples: str) -> ArgumentParser:
    """An argument parser whose help ends with examples and exit codes."""
    return ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=f"examples:\n{examples}\n{EXIT_CODES}",
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def run_command(
    main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None
) -> int:
    """Run a command's main function; the exit code for `sys.exit`."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s", force=True)
    logging.addLevelName(logging.WARNING, "warning")
    logging.addLevelName(logging.INFO, "note")
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return main(argv)
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a disk or a network that fails, a file that went away
        notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        sys.stderr.write(
            f"error: {error}{notes}; what is finished is kept, run the command again\n"
        )
        return Interrupted.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; what is finished is kept, run the same command to go on\n")
        return CTRL_C


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
