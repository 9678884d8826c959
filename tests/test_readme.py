"""What the README shows works, and nothing that it should show is left out."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.index import Dataset
from pipeline.sources.catalogue import ENTRIES, FAMILIES
from tests.pictures import fill

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_source_of_ones_own_runs_as_it_stands(tmp_path: Path) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    fill(tmp_path / "data" / "scans", {"a": 2, "b": 3})
    (tmp_path / "scans.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "scans.py"], cwd=tmp_path, env=environment, check=True)
    assert Dataset.open(tmp_path / "shards" / "scans").manifest.samples == 5


@pytest.mark.parametrize("dataset", [*ENTRIES, *FAMILIES])
def test_every_dataset_has_its_place_in_the_table(dataset: str) -> None:
    rows = [line.split("|")[1] for line in README.splitlines() if line.startswith("|")]
    assert any(f"`{dataset}`" in row for row in rows)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_every_link_into_the_repository_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
