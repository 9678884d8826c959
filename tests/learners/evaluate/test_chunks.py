"""An evaluation chooses its chunks, halves them where memory runs out, and goes on in those it began with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from learners.evaluate.__main__ import main
from learners.evaluate.ledger import SETTINGS_JSON
from learners.evaluate.records import EvaluationResult
from pipeline.command import run_command
from pipeline.errors import UsageError
from tests.learners.evaluate.tiny import SIZE, glyphs
from tests.learners.scarce_memory import memory_for

LEARNER = ("--learner", "protonets", "--backbone", "conv4", "--weights", "random", "--image-size", SIZE)
TASKS = ("--protocol", "fixed", "--way", 3, "--shot", 2, "--query", 3, "--tasks", 4)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glyphs(tmp_path_factory.mktemp("chunks"))


def words(shards: Path, out: Path, *more: object) -> list[str]:
    own = ("--shards", shards, "--out", out, "--device", "cpu", "--threads", 1, *LEARNER, *TASKS, *more)
    return [str(word) for word in own]


def evaluated(shards: Path, out: Path, *more: object) -> EvaluationResult:
    assert main(words(shards, out, *more)) == 0
    return EvaluationResult.load(out)


@pytest.mark.parametrize("share", ["--share", "--no-share"])
def test_out_of_memory_halves_the_chunks_and_says_so_in_the_result(
    shards: Path, tmp_path: Path, share: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = evaluated(shards, tmp_path / "plenty", share)
    assert wanted.notes == ("not trained on tasks; backbone's weights: random",)
    with memory_for(0, forward=5):
        found = evaluated(shards, tmp_path / "scarce", share, "--chunk", 12)
    assert found.scores == wanted.scores
    assert found.notes[1:] == ("out of memory: from some task on in chunks of 3 images",)
    lines = [line for line in caplog.messages if line.startswith("out of memory")]
    assert [line.rpartition("; ")[2] for line in lines] == [
        "going on with chunks of 6 images",
        "going on with chunks of 3 images",
    ]


def test_auto_goes_on_in_the_chunks_that_the_evaluation_began_with(shards: Path, tmp_path: Path) -> None:
    evaluated(shards, tmp_path, "--chunk", 5)
    before = (tmp_path / SETTINGS_JSON).read_bytes()
    assert json.loads(before)["chunk"] == 5
    evaluated(shards, tmp_path, "--tasks", 6)
    assert (tmp_path / SETTINGS_JSON).read_bytes() == before
    with pytest.raises(UsageError, match="chunk was 5 and is 7"):
        evaluated(shards, tmp_path, "--chunk", 7)


def test_chunks_of_two_sizes_are_recorded(shards: Path, tmp_path: Path) -> None:
    tuner = ("--learner", "finetuner_film", "--backbone", "resnet18", "--inner-steps", 1)
    flags = (*tuner, "--chunk-memory", 0.006)
    evaluated(shards, tmp_path, *flags)
    settings = json.loads((tmp_path / SETTINGS_JSON).read_bytes())
    assert 1 < settings["chunk"] < settings["forward_chunk"] <= 40
    evaluated(shards, tmp_path, *tuner, "--tasks", 6)


def test_one_image_that_does_not_fit_is_an_error_in_one_sentence(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with memory_for(0, forward=0):
        assert run_command(main, words(shards, tmp_path)) == UsageError.exit_code
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error"))
    assert error == (
        "error: out of memory with one image at a time (CUDA out of memory. Tried to pass 1 images.); half "
        "precision, smaller images or a smaller network need less"
    )


@pytest.mark.parametrize("flags", [("--chunk-memory", -1), ("--chunk-memory", 1, "--chunk", 3)])
def test_memory_without_a_choice_is_refused(shards: Path, tmp_path: Path, flags: tuple[object, ...]) -> None:
    with pytest.raises(UsageError, match="--chunk-memory is GB for --chunk auto"):
        main(words(shards, tmp_path, *flags))
