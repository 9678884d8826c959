"""What the README and the pages of docs show works, and nothing that they should show is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.index import Dataset
from pipeline.sources.catalogue import ENTRIES, FAMILIES
from tests.images import fill_class_folders
from tests.learners.small import make_run

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "shards/README.md", *(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
DECISIONS = [f"docs/decisions/{p.name}" for p in (ROOT / "docs" / "decisions").glob("*.md")]
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
PROGRAMS = {
    program for text in TEXTS.values() for program in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
}


def run_program(mark: str, folder: Path) -> list[str]:
    """Run the pages' program that contains `mark` in a folder; the lines it prints."""
    (program,) = [text for text in PROGRAMS if mark in text]
    (folder / "program.py").write_text(program)
    return run(folder, "-W", "error", "program.py")


def run(folder: Path, *arguments: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_every_program_is_run_below() -> None:
    assert len(PROGRAMS) == 6


def test_the_source_of_ones_own_runs_as_it_stands(tmp_path: Path) -> None:
    fill_class_folders(tmp_path / "data" / "scans", {"a": 2, "b": 3})
    run_program("class Scans", tmp_path)
    assert Dataset.open(tmp_path / "shards" / "scans").manifest.samples == 5


def test_episodes_stream_and_train_from_the_demo_as_they_stand(tmp_path: Path) -> None:
    run(tmp_path, "-m", "pipeline.build", "--dataset", "demo", "--out", "shards/demo", "--quiet")
    lines = run_program("class Ridge", tmp_path)
    assert [line.partition(":")[0] for line in lines] == [f"episode {n}" for n in range(4)]
    *episodes, stats = run_program("samplers.MetaDataset", tmp_path)
    assert [line[:18] for line in episodes] == [f"<episode {n}: demo, " for n in range(3)]
    assert stats.startswith("3 episodes")
    assert run_program("Dataset.open", tmp_path) == []


def test_the_images_and_sampler_of_ones_own_run_as_they_stand(tmp_path: Path) -> None:
    fill_class_folders(tmp_path / "data" / "birds", {"owl": 6, "crow": 5, "emu": 9})
    (command,) = re.findall(r"`python -m (pipeline\.build .*shards/birds)`", TEXTS["docs/extending.md"])
    run(tmp_path, "-m", *command.split(), "--workers", "1")
    lines = run_program("class Pairs", tmp_path)
    assert len(lines) == 3
    for number, line in enumerate(lines):
        assert f"episode {number}: birds, 2-way, 2 shots, 4 support, 6 query" in line
        assert "torch.Size([4, 3, 84, 84])" in line


def test_a_run_adapts_to_a_folder_of_pictures_as_it_stands(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "x")
    fill_class_folders(tmp_path / "mine", {"mug": 1, "hat": 1})
    (line,) = run_program("Learner.load", tmp_path)
    assert re.fullmatch(r"\[Answer\(name='mug'.*\), Answer\(name='hat'.*\)\]", line)
    assert (tmp_path / "mine.safetensors").exists()


@pytest.mark.parametrize("dataset", [*ENTRIES, *FAMILIES])
def test_every_dataset_has_its_place_in_the_table(dataset: str) -> None:
    rows = [line.split("|")[1] for line in TEXTS["docs/datasets.md"].splitlines() if line.startswith("|")]
    assert any(f"`{dataset}`" in row for row in rows)


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS])
def test_every_link_into_the_repository_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []
