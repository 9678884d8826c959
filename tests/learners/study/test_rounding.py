"""Each precision's error against float64."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learners.study import rounding
from learners.study.__main__ import main
from learners.study.gradients import engine_gradient, lite_settings
from learners.study.rounding import PRECISIONS, rounding_errors
from learners.task import ChunkedPass
from tests.learners.tasks import error, protonets, rng, simple_cnaps, task


def test_errors_are_those_of_the_mantissas() -> None:
    learner, small_task = simple_cnaps().float(), task((4, 4), queries=6)
    found = {name: errors.mse**0.5 for name, errors in rounding_errors(learner, small_task, PRECISIONS)}
    assert 0 < found["float32"] < 1e-4
    assert 10 * found["float32"] < found["tf32"] < 0.05
    assert found["tf32"] < found["bfloat16"]
    assert found["float16"] < 0.5 * found["bfloat16"] < 0.5  # ten bits of mantissa against seven


def test_the_error_is_the_distance_to_the_gradient_in_float64() -> None:
    learner, small_task = protonets(), task((4, 4), queries=6)
    exact = engine_gradient(learner, small_task, lite_settings("exact", 0, small_task), rng())
    learner = learner.float()
    plain = engine_gradient(learner, small_task, lite_settings("exact", 0, small_task), rng()).double()
    ((_, errors),) = rounding_errors(learner, small_task, ["float32"])
    assert errors.mse**0.5 == pytest.approx(error(plain, exact), rel=0.05)
    assert errors.draws == 1


def test_float16_has_the_loss_scale_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, small_task = protonets().float(), task((4, 4), queries=6)
    ((_, scaled),) = rounding_errors(learner, small_task, ["float16"])
    monkeypatch.setattr(rounding, "FIRST_LOSS_SCALE", 2.0**-24)
    ((_, underflown),) = rounding_errors(learner, small_task, ["float16"])
    assert scaled.mse < 0.1 < underflown.mse


def test_the_learner_is_left_in_float32_and_in_no_context() -> None:
    learner, small_task = protonets().float(), task((4, 4), queries=6)
    list(rounding_errors(learner, small_task, PRECISIONS))
    assert {parameter.dtype for parameter in learner.parameters()} == {torch.float32}
    assert all(parameter.grad is None for parameter in learner.parameters())
    ChunkedPass().run(learner.backbone, small_task.support)


def test_the_command_prints_precisions_below_the_samplers_and_says_how(
    built: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    flags = {"--shards": built, "--backbone": "conv4", "--image-size": 24, "--way": 3, "--shot": 2, "--query": 2,
             "--tasks": 2, "--samplers": "none"}  # fmt: skip
    words = [str(word) for pair in flags.items() for word in pair]
    assert main([*words, "--h", "1", "--precision", "float32", "bfloat16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["sampler", "none", "precision", "float32", "bfloat16"]
    assert "against float64" in lines[2]
    single, half = (float(line.split()[1]) for line in lines[3:])
    assert 0 < single < 1e-4 < half < 0.5
    assert "--precision is emulated on a CPU" in caplog.text
