"""Errors become one line and an exit code."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.common import ROOT
from pipeline import command as progress
from pipeline import errors
from pipeline.command import ProgressBar, run_command


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.SourceMissing, 3),
        (errors.IntegrityError, 4),
        (errors.OutOfSpace, 5),
        (errors.RunInterrupted, 75),
        (OSError, 75),
        (KeyboardInterrupt, 130),
    ],
)
def test_each_failure_has_its_exit_code_and_no_traceback(
    kind: type[BaseException], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_argv: Sequence[str] | None) -> int:
        raise kind("the reason")

    assert run_command(main) == code
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    assert ("the reason" in shown) == (kind is not KeyboardInterrupt)


@pytest.mark.parametrize(
    ("number", "code", "advice"),
    [
        (errno.ENOSPC, 5, "free some and run the command again"),
        (errno.EDQUOT, 5, "free some and run the command again"),
        (errno.EFBIG, 5, "free some and run the command again"),
        (errno.EROFS, 2, "name another folder"),
        (errno.EACCES, 2, "give this user the right"),
        (errno.ENOTDIR, 2, "name another path"),
        (errno.ENAMETOOLONG, 2, "name another path"),
        (errno.ENOENT, 3, "put it back"),
        (errno.EMFILE, 75, "ulimit -n"),
        (errno.EIO, 75, "run the command again"),
        (errno.ECONNRESET, 75, "run the command again"),
    ],
)
def test_the_system_s_errors_have_their_codes_and_name_the_file(
    number: int, code: int, advice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(_argv: Sequence[str] | None) -> int:
        raise OSError(number, os.strerror(number), "/data/here")

    assert run_command(main) == code
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "/data/here" in shown
    assert advice in shown


PRINT = "import sys; from pipeline.command import run_command; sys.exit(run_command(lambda _: print({text}) or 0))"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("text", ["1", "'x' * 100_000"], ids=["at the end", "half-way"])
def test_an_output_that_takes_no_more_is_a_full_disk_and_one_sentence(text: str) -> None:
    command = [sys.executable, "-c", PRINT.format(text=text)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_runs_without_output_and_errors(closed: str) -> None:
    command = f'{sys.executable} -c "{PRINT.format(text=1)}" {closed}'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_reader_that_ends_half_way_is_no_failure() -> None:
    command = f'{sys.executable} -c "{PRINT.format(text="chr(10) * 1_000_000")}" | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_a_closed_pipe_of_something_else_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def main(_argv: Sequence[str] | None) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    assert run_command(main) == 75
    assert "Broken pipe" in capsys.readouterr().err


def test_a_locale_whose_file_names_are_no_utf8_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    assert run_command(lambda _argv: pytest.fail("the command ran")) == 2
    assert "this locale has them in iso8859-1; set LC_ALL=C.UTF-8" in capsys.readouterr().err


def test_a_reader_that_ends_early_is_no_failure(built: Path) -> None:
    command = f"{sys.executable} -m pipeline.build --help | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage")
    assert done.stderr == ""


def test_an_unforeseen_failure_keeps_its_traceback() -> None:
    def main(_argv: Sequence[str] | None) -> int:
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        run_command(main)


def test_a_progress_line_has_count_rate_and_time_left() -> None:
    with ProgressBar("omniglot", 200, quiet=True) as counter:
        counter.advance(50, "1 bad")
        assert counter.line(10.0) == "omniglot: 50/200 (25 %), 5 img/s, 30 s left, 1 bad"


def test_lines_come_in_a_log_and_not_when_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    for quiet in (False, True):
        with ProgressBar("demo", 2, quiet=quiet) as counter:
            counter.advance(2)
    assert capsys.readouterr().err.count("demo: 2/2 (100 %)") == 1


def test_a_signal_that_comes_after_the_work_leaves_no_traceback() -> None:
    """As torchrun sends one to the processes that outlive a lost one."""
    script = (
        "import os, signal, sys\n"
        "from pipeline.command import run_command\n"
        "code = run_command(lambda _: 4)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGTERM
    assert done.stderr == ""
