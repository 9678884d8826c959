"""A run's records survive damage line by line, and a run that goes on drops those that come again."""

from __future__ import annotations

import errno
import json
from contextlib import suppress
from pathlib import Path

import pytest

from learners.training.journal import METRICS_FILE, RunJournal, draw_curve, read_records

LINES = [json.dumps({"kind": "step", "tasks": tasks, "loss": 1.5, "accuracy": 0.5}) for tasks in range(1, 21)]


def write_lines(folder: Path, lines: list[str], end: str = "\n") -> Path:
    file = folder / METRICS_FILE
    file.write_text("\n".join(lines) + end)
    return file


@pytest.mark.parametrize(
    "damaged",
    [
        LINES[4][:-5],
        "5",
        "[]",
        '"text"',
        "",
        "[" * 100_000,
        '{"kind": "step"}',
        '{"kind": "step", "tasks": "5", "accuracy": 0.5}',
        '{"kind": "other", "tasks": 5, "accuracy": 0.5}',
        '{"kind": "step", "tasks": 5, "accuracy": ' + "9" * 5_000 + "}",
    ],
)
def test_a_damaged_line_costs_itself_alone_and_is_said(
    tmp_path: Path, damaged: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_lines(tmp_path, [*LINES[:4], damaged, *LINES[5:]])
    with RunJournal(tmp_path, done=20):
        pass
    assert file.read_text().splitlines() == [*LINES[:4], *LINES[5:]]
    assert f"1 of 20 lines of {file} are damaged; they are left out" in capsys.readouterr().out


def test_bytes_that_are_no_text_are_a_damaged_line(tmp_path: Path) -> None:
    file = write_lines(tmp_path, LINES[:3])
    file.write_bytes(file.read_bytes() + bytes(range(128, 256)) + b"\n" + bytes(4096) + b"\n")
    assert len(read_records(tmp_path)) == 3


def test_a_last_line_that_was_cut_off_is_dropped_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_lines(tmp_path, [*LINES[:4], LINES[4][:9]], end="")
    with RunJournal(tmp_path, done=20) as journal:
        journal.write("step", 5, {"accuracy": 0.25})
    assert file.read_text().splitlines()[:4] == LINES[:4]
    assert [record["tasks"] for record in read_records(tmp_path)] == [1, 2, 3, 4, 5]
    assert capsys.readouterr().out == ""


def test_records_that_come_again_are_dropped_and_a_file_without_them_is_left_alone(tmp_path: Path) -> None:
    file = write_lines(tmp_path, LINES)
    inode = file.stat().st_ino
    with RunJournal(tmp_path, done=20):
        pass
    assert file.stat().st_ino == inode  # who follows it still does
    with RunJournal(tmp_path, done=7):
        pass
    assert file.read_text().splitlines() == LINES[:7]


def test_a_validation_that_the_checkpoint_does_not_know_comes_again(tmp_path: Path) -> None:
    """A run that ended between the record and the checkpoint after it."""
    checks = [json.dumps({"kind": "validation", "tasks": tasks, "accuracy": 0.5}) for tasks in (5, 10)]
    file = write_lines(tmp_path, [*LINES[:10], *checks])
    with RunJournal(tmp_path, done=10, validated=5):
        pass
    assert file.read_text().splitlines() == [*LINES[:10], checks[0]]


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with RunJournal(tmp_path) as journal, Path("/dev/full").open("w") as full:
        journal._file._file, own = full, journal._file._file
        with pytest.raises(OSError, match=METRICS_FILE) as caught:
            journal.write("step", 1, {"accuracy": 0.5})
        journal._file._file = own
        with suppress(OSError):
            full.close()
    assert caught.value.errno == errno.ENOSPC


def test_a_curve_is_drawn_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="needs pip install -e '.[train]'")
    write_lines(tmp_path, LINES)
    curve = draw_curve(tmp_path)
    assert curve is not None
    before = curve.read_bytes()

    def fail(_figure: object, target: object, **_: object) -> None:
        target.write(b"half")  # type: ignore[attr-defined]
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(figure.Figure, "savefig", fail)
    with pytest.raises(OSError, match="Input/output"):
        draw_curve(tmp_path)
    assert curve.read_bytes() == before
