"""The command: its defaults, its report, its exit codes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.build.__main__ import main
from pipeline.command import run_command
from pipeline.index import Dataset
from tests.images import tree_hashes


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> object:
    yield
    logging.getLogger().handlers.clear()


def command(*arguments: object) -> list[str]:
    return [*map(str, arguments), "--workers", "1", "--quiet"]


def test_the_demo_builds_and_its_classes_can_be_told_apart_by_split(tmp_path: Path) -> None:
    assert (
        run_command(
            main,
            command("--dataset", "demo", "--out", tmp_path / "demo", "--limit-per-class", 2, "--sizes", 84),
        )
        == 0
    )
    manifest = Dataset.open(tmp_path / "demo").manifest
    assert dict(manifest.splits) == {"test": 16, "train": 48, "validation": 16}


def test_the_report_is_json_when_asked(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "cat" / "000.jpg").write_text("not a picture")
    arguments = command(
        "--dataset", "folder", "--source", photos, "--out", tmp_path / "o", "--json", "--name", "pets"
    )
    assert run_command(main, arguments) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["dataset"], report["images"], report["complete"]) == ("pets", 12, True)
    assert report["quarantined"][0]["name"] == "cat/000.jpg"


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(
        "--dataset", "folder", "--source", photos, "--out", tmp_path / "o", "--dry-run", "--json"
    )
    assert run_command(main, arguments) == 0
    (plan,) = json.loads(capsys.readouterr().out)
    assert (plan["classes"], plan["images"]) == (3, 13)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--dataset", "folder", "--source", "nowhere"], 3, "nowhere is needed and is not there"),
        (["--dataset", "demo", "--encode", "99=raw"], 2, "--encode takes SIZE=ENCODING"),
        (["--dataset", "demo", "--encode", "84=gif"], 2, "an encoding is"),
        (["--dataset", "demo", "--task-index", "3"], 2, "--task-index and --num-tasks go together"),
        (["--dataset", "demo", "--task-index", "3", "--num-tasks", "3"], 2, "counts from 0"),
        (["--dataset", "demo", "--engine", "array"], 2, "or a scheduler that sets"),
        (["--dataset", "demo", "--limit-per-class", "0"], 2, "--limit-per-class starts at 1"),
        (["--dataset", "demo", "--sizes", "84", "84"], 2, "sizes are different"),
    ],
)
def test_a_request_that_cannot_be_met_says_why(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, command(*arguments, "--out", tmp_path / "o")) == code
    assert message in capsys.readouterr().err


def test_an_array_task_has_its_number_from_the_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--dataset", "demo", "--limit-per-class", "2", "--sizes", "84", "--shard-samples", "20"]
    for task in "10":
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
        assert run_command(main, command(*arguments, "--engine", "array", "--out", tmp_path / "array")) == 0
    assert run_command(main, command(*arguments, "--out", tmp_path / "local")) == 0
    assert tree_hashes(tmp_path / "array") == tree_hashes(tmp_path / "local")


def test_strict_ends_with_code_four(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "cat" / "000.jpg").write_text("not a picture")
    arguments = command("--dataset", "folder", "--source", photos, "--out", tmp_path / "o", "--strict")
    assert run_command(main, arguments) == 4
    assert "cat/000.jpg" in capsys.readouterr().err


def test_help_shows_examples_and_exit_codes() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline.build", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "python -m pipeline.build --dataset omniglot" in shown
    assert "exit codes:" in shown
