"""Away from a terminal, a line now and then that says how far it is."""

from __future__ import annotations

import pytest

from pipeline import progress
from pipeline.progress import Progress


def test_a_line_says_done_total_rate_and_what_is_left() -> None:
    with Progress("omniglot", 200, quiet=True) as counter:
        counter.advance(50, "1 bad")
        assert counter.line(10.0) == "omniglot: 50/200 (25 %), 5 img/s, 30 s left, 1 bad"


def test_lines_come_in_a_log_and_not_when_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    for quiet in (False, True):
        with Progress("demo", 2, quiet=quiet) as counter:
            counter.advance(2)
    assert capsys.readouterr().err.count("demo: 2/2 (100 %)") == 1
