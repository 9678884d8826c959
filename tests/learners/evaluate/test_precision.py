"""Evaluations in each precision, and those that older versions began."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learners.evaluate.__main__ import main
from learners.evaluate.ledger import SETTINGS_JSON
from learners.evaluate.records import EvaluationResult
from pipeline.errors import UsageError
from tests.learners.evaluate.tiny import SIZE, glyphs

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glyphs(tmp_path_factory.mktemp("precision"))


def words(shards: Path, out: Path, *more: object) -> list[str]:
    flags = ("--protocol", "fixed", "--way", 3, "--shot", 2, "--query", 3, "--learner", "protonets", "--backbone",
             "conv4", "--weights", "random", "--image-size", SIZE, "--device", "cpu", "--threads", 1)  # fmt: skip
    return [str(word) for word in ("--shards", shards, "--out", out, *flags, *more)]


def test_on_a_cpu_an_evaluation_goes_on_in_tf32_or_repeated_bits_where_it_was_in_float32(
    shards: Path, tmp_path: Path
) -> None:
    assert main(words(shards, tmp_path, "--tasks", 2, "--precision", "float32")) == 0
    before = json.loads((tmp_path / SETTINGS_JSON).read_text())
    assert before["precision"] == "float32"  # as older versions wrote it
    assert main(words(shards, tmp_path, "--tasks", 4)) == 0
    assert main(words(shards, tmp_path, "--tasks", 5, "--precision", "tf32", "--deterministic")) == 0
    assert json.loads((tmp_path / SETTINGS_JSON).read_text()) == before
    assert EvaluationResult.load(tmp_path).scores[0].count == 5


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_half_precision_is_written_as_before_and_does_not_mix(
    shards: Path, tmp_path: Path, precision: str
) -> None:
    assert main(words(shards, tmp_path, "--tasks", 2, "--precision", precision)) == 0
    assert json.loads((tmp_path / SETTINGS_JSON).read_text())["precision"] == f"torch.{precision}"
    with pytest.raises(UsageError, match=rf'precision was "torch.{precision}" and is "float32"'):
        main(words(shards, tmp_path, "--tasks", 4))
