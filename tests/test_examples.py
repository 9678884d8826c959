"""The examples run as they are, from the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.own_photos import main
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from tests.images import fill_class_folders
from tests.learners.small import make_run

ROOT = Path(__file__).parents[1]
OWN_PHOTOS = ROOT / "examples" / "own_photos.py"


def run(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(OWN_PHOTOS), *map(str, words)], cwd=folder, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: a run of ProtoNets, photographs of three things, one that is unreadable."""
    home = tmp_path_factory.mktemp("home")
    make_run(home / "runs" / "x")
    fill_class_folders(home / "mine", {"mug": 1, "keys": 1, "hat": 1})
    (home / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(9))
    return home


def test_own_photos_are_learned_saved_and_recognised_by_the_file_alone(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = [f"mine/{name}/000.jpg" for name in ("mug", "hat", "keys")]
    first = run(home, "--checkpoint", "runs/x", "mine", *queries, "--save", "mine.safetensors")
    assert first.returncode == 0, first.stderr
    classes, saved, *table = first.stdout.splitlines()
    assert classes == "classes: hat, keys, mug"
    assert saved == "saved mine.safetensors"
    assert [line.split()[:2] for line in table] == [[name, name.split("/")[1]] for name in queries]
    assert all(line.count("%") == 3 for line in table)
    monkeypatch.chdir(home)
    assert main(["--classifier", "mine.safetensors", "mine/mug", "mine/hat", "mine/keys"]) == 0
    assert capsys.readouterr().out.splitlines() == [classes, *table]


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["--checkpoint", "runs/x"], UsageError, "name the folder of photographs"),
        (["--checkpoint", "runs/x", "mine/mug"], UsageError, "lies in none"),
        (["--checkpoint", "runs/x", "mine", "nowhere.jpg"], SourceMissing, "nowhere.jpg: there is"),
        (["--checkpoint", "runs/x", "mine", "phone.heic"], IntegrityError, "save it as JPEG or PNG"),
        (["--weights", "nowhere.safetensors", "mine"], SourceMissing, "there is no such file"),
        (["--weights", "pretrained", "mine"], UsageError, "mobilenetv1_075 has no weights to fetch"),
        (["mine"], SystemExit, "2"),
    ],
)
def test_impossible_commands_are_errors(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], kind: type[BaseException], message: str
) -> None:
    monkeypatch.chdir(home)
    with pytest.raises(kind, match=message):
        main(words)
