"""The commands of docs/reproduce-the-paper.md for the authors' checkpoints, on small shards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from learners.convert.__main__ import main as convert
from learners.evaluate.__main__ import main as evaluate
from learners.evaluate.records import EvaluationResult
from tests.learners.convert.authors import AuthorsLearner
from tests.learners.evaluate.tiny import flowers
from tests.learners.training.tiny_md import SIDE, one_thread, tiny_md, tiny_orbit
from tests.test_reproduce import commands

SECTION = "Evaluate the authors"
SMALL = ["--image-size", str(SIDE), "--device", "cpu", "--threads", "1"]
ONE_TASK = {"md": ["--tasks", "1"], "vtab": [], "orbit": ["--tasks-per-user", "1"]}
single_thread = pytest.fixture(scope="module", autouse=True)(one_thread)


def test_the_commands_of_the_page_convert_and_evaluate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_md(tmp_path / "shards" / "md")
    flowers(tmp_path / "shards" / "vtab")
    shutil.move(tiny_orbit(tmp_path), tmp_path / "shards" / "orbit")
    files = {
        "meta-trained_lite_224.pt": AuthorsLearner("lite", "simple_cnaps", "efficientnet_b0"),
        "orbit_cluve_simplecnaps_efficientnetb0_224_lite.pth": AuthorsLearner(
            "orbit-2021", "simple_cnaps", "efficientnet_b0"
        ),
    }
    for name, authors in files.items():
        torch.save(authors.state, name)
    done = []
    for program, *arguments in commands(SECTION):
        done.append(program)
        if program == "learners.convert":
            assert convert(arguments) == 0
        else:
            protocol = arguments[arguments.index("--protocol") + 1]
            assert evaluate([*arguments, *SMALL, *ONE_TASK[protocol]]) == 0
    assert (done.count("learners.convert"), done.count("learners.evaluate")) == (2, 3)
    result = EvaluationResult.load(Path("results/authors-md"))
    assert result.learner["learner"] == "simple_cnaps"
    assert result.learner["options"]["encoder_norm"] == "batch"
    assert any("whether its training had classes of these tasks was not checked" in n for n in result.notes)
