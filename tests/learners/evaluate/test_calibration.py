"""Calibration: figures known by hand, a temperature that never sees the tasks it is judged on, the same in every resume."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from learners.evaluate.__main__ import main
from learners.evaluate.calibration import calibration_error, calibration_scores, task_calibration
from learners.evaluate.records import EvaluationResult, TaskAnswers, TaskCalibration
from learners.evaluate.validation_temperature import TEMPERATURE_FILE
from pipeline.errors import UsageError
from tests.learners.evaluate.tiny import SIZE, glyphs, validated_glyphs

pytestmark = pytest.mark.usefixtures("one_thread")
LEARNER = ("--learner", "protonets", "--backbone", "conv4", "--weights", "random", "--image-size", SIZE)
FIXED = ("--protocol", "fixed", "--way", 3, "--shot", 2, "--query", 4, "--tasks", 9)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return validated_glyphs(tmp_path_factory.mktemp("calibration"))


def evaluated(shards: Path, out: Path, *more: object) -> EvaluationResult:
    flags = ("--shards", shards, "--out", out, "--device", "cpu", "--threads", 1, *LEARNER, *FIXED, *more)
    assert main([str(flag) for flag in flags]) == 0
    return EvaluationResult.load(out)


def test_confidence_equal_to_accuracy_in_each_bin_is_no_error() -> None:
    sure = torch.tensor([[0.75, 0.25]] * 4)
    assert calibration_error(sure, torch.tensor([0, 0, 0, 1])) == pytest.approx(0, abs=1e-6)
    assert calibration_error(sure, torch.tensor([0, 0, 0, 0])) == pytest.approx(0.25)


def test_bins_weigh_as_much_as_they_have_answers_and_own_their_upper_edge() -> None:
    probabilities = torch.tensor([[1.0, 0.0], [0.6, 0.4], [0.6, 0.4], [0.54, 0.46]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 1, 1])
    # 1.0 is right; 0.6 is the upper edge of (8/15, 9/15], where 0.54 is as well, and all three are wrong
    assert calibration_error(probabilities, labels) == pytest.approx((0 + 0.6 + 0.6 + 0.54) / 4)


def test_the_likelihood_is_that_of_logits_divided_by_the_temperature() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 6.0]]), torch.tensor([0, 0])
    found = task_calibration(logits, labels, temperature=2.0)
    assert found is not None
    assert found.nll == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2)
    assert task_calibration(logits[:0], labels[:0]) is None


def test_an_evaluation_has_both_figures_at_one_and_at_the_fitted_temperature(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, fitted = evaluated(shards, tmp_path / "a", "--calibration-tasks", 6).calibration
    assert (plain.temperature, plain.fitted, fitted.fitted, plain.count, fitted.count) == (
        1,
        False,
        True,
        9,
        9,
    )
    written = json.loads((tmp_path / "a" / TEMPERATURE_FILE).read_text())
    assert written == {"temperature": fitted.temperature}
    assert fitted.temperature != 1
    assert 0 < fitted.nll < plain.nll  # distances of a random network are far from probabilities
    assert 0 <= fitted.ece <= 1
    assert "fitted" in capsys.readouterr().out


def test_the_temperature_depends_on_validation_classes_alone(shards: Path, tmp_path: Path) -> None:
    some = evaluated(shards, tmp_path / "a", "--calibration-tasks", 6, "--tasks", 3)
    more = evaluated(shards, tmp_path / "b", "--calibration-tasks", 6, "--tasks", 12)
    assert some.calibration[1].temperature == more.calibration[1].temperature
    others = evaluated(shards, tmp_path / "c", "--calibration-tasks", 2, "--tasks", 3)
    assert some.calibration[1].temperature != others.calibration[1].temperature


def test_sharing_features_changes_no_figure(shards: Path, tmp_path: Path) -> None:
    shared = evaluated(shards, tmp_path / "a", "--calibration-tasks", 6).calibration
    apart = evaluated(shards, tmp_path / "b", "--calibration-tasks", 6, "--no-share").calibration
    for one, other in zip(shared, apart, strict=True):
        assert (one.nll, one.ece, one.temperature) == pytest.approx(
            (other.nll, other.ece, other.temperature), 1e-2
        )


def test_an_evaluation_that_goes_on_keeps_its_temperature(shards: Path, tmp_path: Path) -> None:
    whole = evaluated(shards, tmp_path / "whole", "--calibration-tasks", 6)
    evaluated(shards, tmp_path / "parts", "--calibration-tasks", 6, "--tasks", 4)
    ledger = tmp_path / "parts" / "tasks-0.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:2]))
    assert evaluated(shards, tmp_path / "parts", "--calibration-tasks", 6).calibration == whole.calibration


def test_no_temperature_is_fitted_without_validation_classes_or_when_none_is_wanted(
    shards: Path, tmp_path: Path
) -> None:
    without = glyphs(tmp_path / "shards")
    assert [score.fitted for score in evaluated(without, tmp_path / "a").calibration] == [False]
    assert [s.fitted for s in evaluated(shards, tmp_path / "b", "--calibration-tasks", 0).calibration] == [
        False
    ]


def test_validation_classes_that_make_no_such_tasks_are_told(shards: Path, tmp_path: Path) -> None:
    result = evaluated(shards, tmp_path, "--shot", 5, "--query", 3, "--min-examples-in-class", 8)
    assert len(result.calibration) == 2
    few = evaluated(shards, tmp_path / "few", "--way", 5, "--split", "")
    assert any(note.startswith("no temperature is fitted") for note in few.notes)
    assert [score.fitted for score in few.calibration] == [False]


def test_classes_that_are_scored_never_decide_the_temperature(shards: Path, tmp_path: Path) -> None:
    every = evaluated(shards, tmp_path / "every", "--split", "")
    assert any("validation classes too" in note for note in every.notes)
    own = evaluated(shards, tmp_path / "own", "--split", "validation")
    assert [[score.fitted for score in result.calibration] for result in (every, own)] == [[False], [False]]


def test_tasks_answered_before_there_was_calibration_leave_it_out() -> None:
    known = TaskCalibration(temperature=1.0, nll=0.5, ece=0.1)
    tasks = [
        TaskAnswers(dataset="d", number=number, way=2, support=2, queries=2, correct=1, adapt_seconds=0.0,
                    calibration=found)
        for number, found in enumerate([known, None])
    ]  # fmt: skip
    assert calibration_scores(tasks) == ()
    (score,) = calibration_scores(tasks[:1])
    assert (score.nll, score.ece, score.nll_interval, score.count) == (0.5, 0.1, None, 1)


def test_a_negative_number_of_tasks_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibration-tasks starts at 0"):
        evaluated(shards, tmp_path, "--calibration-tasks", -1)
