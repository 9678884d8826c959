"""Errors become one line and an exit code."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

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
