"""The gradient study: unbiased samplers come out unbiased, the papers' do not, and the sums are the engine's."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch

from learners.lite.engine import Lite
from learners.study.__main__ import STUDIED_SAMPLERS, main
from learners.study.gradients import (
    GradientStudy,
    active_share,
    effective_share,
    engine_gradient,
    lite_settings,
)
from learners.study.report import StudentInterval, student_t
from pipeline.errors import PipelineError, SourceMissing, UsageError
from tests.learners.scarce_memory import memory_for
from tests.learners.tasks import error, protonets, simple_cnaps, task, whole

WAY, SHOT, QUERY = 3, 6, 4


def command(shards: Path, *more: object) -> list[str]:
    """Small tasks of the pets, whose rarest class has ten images."""
    flags = {
        "--shards": shards, "--backbone": "conv4", "--image-size": 24, "--way": WAY, "--shot": SHOT,
        "--query": QUERY, "--tasks": 8, "--draws": 400, "--runs": 2,
    }  # fmt: skip
    return [*(str(word) for pair in flags.items() for word in pair), *map(str, more)]


@pytest.fixture(scope="module")
def study_json(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON that a whole study of ProtoNets writes."""
    pytest.importorskip("matplotlib", reason="needs pip install -e '.[train]'")
    out = tmp_path_factory.mktemp("study")
    files = ("--out", out / "study.json", "--png", out / "study.png")
    assert main(command(built, "--h", 6, 12, *files)) == 0
    assert (out / "study.png").read_bytes().startswith(b"\x89PNG")
    found: dict[str, Any] = json.loads((out / "study.json").read_text())
    return found


def row(study_json: dict[str, Any], sampler: str, h: int) -> dict[str, Any]:
    (found,) = [r for r in study_json["rows"] if (r["sampler"], r["h"]) == (sampler, h)]
    return dict(found)


def test_a_study_has_a_row_for_each_sampler_and_h(study_json: dict[str, Any]) -> None:
    expected = {(s, h) for s in STUDIED_SAMPLERS for h in ((0,) if s == "none" else (6, 12))}
    assert {(r["sampler"], r["h"]) for r in study_json["rows"]} == expected
    assert [len(t["shots"]) for t in study_json["tasks"]] == [WAY] * 8
    assert {r["draws"] for r in study_json["rows"]} == {1, 2, 400}
    assert row(study_json, "uniform", 6)["mse_to_uniform"] == {"mean": 1, "low": 1, "high": 1}


def test_the_sums_are_what_the_engine_finds(study_json: dict[str, Any]) -> None:
    assert 0 < study_json["engine_against_sum"] < 1e-4


@pytest.mark.parametrize("sampler", ["uniform", "stratified", "neyman"])
def test_the_unbiased_samplers_come_out_unbiased(study_json: dict[str, Any], sampler: str) -> None:
    for h in (6, 12):
        found = row(study_json, sampler, h)
        assert not found["biased"]
        assert found["bias"] < 0.15 * found["rmse"]["mean"]


def test_the_papers_and_no_support_gradient_come_out_biased(study_json: dict[str, Any]) -> None:
    for sampler, h in (("paper-lite", 6), ("paper-orbit", 6), ("none", 0)):
        found = row(study_json, sampler, h)
        assert found["biased"]
        assert found["bias"] > 0.1


def test_more_images_and_better_allocation_lower_the_error(study_json: dict[str, Any]) -> None:
    for sampler in ("uniform", "stratified", "neyman", "subsample"):
        few, many = (row(study_json, sampler, h)["rmse"]["mean"] for h in (6, 12))
        assert many < few
    assert row(study_json, "neyman", 6)["mse"]["mean"] < row(study_json, "uniform", 6)["mse"]["mean"]


def test_bias_of_the_papers_draw_is_the_supports_missing_share() -> None:
    """E[g] = g_Q + h / N of the support's part, so the bias is 1 - h / N of it."""
    learner, small_task = protonets(), task((4, 4), queries=6)
    study = GradientStudy(learner, small_task, 0, 0)
    assert error(study.exact, whole(learner, small_task)[0]) < 1e-10
    queries = engine_gradient(learner, small_task, Lite(sampler="none"), study.rng())
    missing = float((0.5 * (study.exact - queries)).norm() ** 2) / study.norm2
    assert study.errors("paper-lite", 4, 2000).bias2 == pytest.approx(missing, rel=0.1)


def test_the_sum_and_the_engine_agree_draw_by_draw() -> None:
    study = GradientStudy(protonets(), task((5, 2, 3), queries=6), 0, 0)
    for sampler in ("exact", "uniform", "stratified", "neyman", "paper-lite", "paper-orbit"):
        assert study.disagreement(sampler, 5) < 1e-5


def test_draws_of_queries_are_unbiased_and_neyman_has_less_error(built: Path, tmp_path: Path) -> None:
    flags = ("--samplers", "uniform", "--h", 6, "--query-h", 3, 6, "--precision", "bfloat16", "--out")
    assert main(command(built, *flags, tmp_path / "study.json")) == 0
    found = json.loads((tmp_path / "study.json").read_text())
    assert 0 < found["engine_against_sum"] < 1e-4
    for sampler in ("query-uniform", "query-neyman"):
        for h in (3, 6):
            assert not row(found, sampler, h)["biased"]
        assert row(found, sampler, 6)["rmse"]["mean"] < row(found, sampler, 3)["rmse"]["mean"]
    assert row(found, "query-neyman", 3)["mse_to_uniform"]["mean"] < 1
    assert 0.001 < row(found, "bfloat16", 0)["rmse"]["mean"] < 0.5


def test_the_sum_over_queries_and_the_engine_agree_draw_by_draw() -> None:
    study = GradientStudy(protonets(), task((5, 2, 3), queries=6), 0, 0)
    for sampler in ("query-uniform", "query-neyman"):
        assert study.disagreement(sampler, 2) < 1e-5
        assert study.errors(sampler, 6, 2).mse < 1e-20


def test_the_effective_share_of_queries_is_1_where_all_have_the_same_gradient() -> None:
    assert effective_share(torch.ones(4)) == 1
    assert effective_share(torch.tensor([0.0, 3.0, 0.0, 0.0])) == pytest.approx(0.25)
    study = GradientStudy(protonets(), task((5, 2, 3), queries=6), 0, 0)
    lengths = study.looked[1].norm(dim=1)
    assert study.effective_queries == pytest.approx(float(lengths.sum() ** 2 / (6 * lengths.square().sum())))
    assert 0 < study.effective_queries < 1


def test_the_effective_share_of_queries_is_printed_and_kept(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ("--samplers", "none", "--query-h", 3, "--out")
    assert main(command(built, *flags, tmp_path / "study.json")) == 0
    shares = [
        task["effective_queries"] for task in json.loads((tmp_path / "study.json").read_text())["tasks"]
    ]
    printed = f"{sum(shares) / len(shares):.3f} ("
    assert printed in capsys.readouterr().out.splitlines()[-1]


def test_a_learner_with_a_set_encoder_goes_through_the_engine() -> None:
    study = GradientStudy(simple_cnaps(), task((4, 4), queries=4), 0, 0)
    assert not study.is_linear("uniform")
    found = study.errors("uniform", 4, 6)
    assert found.draws == 6
    assert found.mse > 0
    assert study.errors("uniform", 8, 2).mse < 1e-20


def test_a_saturated_softmax_is_told_from_one_that_learns() -> None:
    learner, small_task = protonets(), task((4, 4), queries=8)
    assert active_share(learner, small_task) > 0.9
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(40)
    assert active_share(learner, small_task) < active_share(protonets(), small_task)


def test_an_interval_is_students() -> None:
    assert student_t(7) == pytest.approx(2.365, abs=0.01)
    assert student_t(2) == pytest.approx(4.303, rel=0.04)
    found = StudentInterval.of([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.high - found.mean == pytest.approx(4.303 / np.sqrt(3), rel=0.04)


def test_unbalanced_tasks_have_more_support_images_than_any_h(
    built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--unbalanced", "--h", 8, "--samplers", "uniform", "neyman", "--json", "--tasks", 2)
    assert main(command(built, *options)) == 0
    shots = [t["shots"] for t in json.loads(capsys.readouterr().out)["tasks"]]
    assert all(sum(each) > 8 for each in shots)
    assert any(len(set(each)) > 1 for each in shots)


def test_shots_are_as_given_one_for_each_class(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--shot", 1, 2, 6, "--h", 4, "--samplers", "uniform", "neyman", "--tasks", 2)
    assert main(command(built, *options, "--json")) == 0
    shots = [t["shots"] for t in json.loads(capsys.readouterr().out)["tasks"]]
    assert [sorted(each) for each in shots] == [[1, 2, 6]] * 2


def test_a_frozen_backbone_is_pretrained_unless_random_weights_are_asked_for(
    built: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    frozen = ("--learner", "cnaps", "--image-size", 48)
    with pytest.raises(SourceMissing) as missing:
        main(command(built, *frozen, "--backbone", "efficientnet_b0"))
    for part in ("could not be fetched", "no network", "--weights FILE", "sha256", "--weights random"):
        assert part in str(missing.value)
    with pytest.raises(UsageError, match=r"resnet18_84 has no weights to fetch.*--weights random"):
        main(command(built, *frozen, "--backbone", "resnet18_84"))
    few = (
        "--tasks",
        2,
        "--way",
        2,
        "--shot",
        1,
        "--query",
        1,
        "--h",
        1,
        "--samplers",
        "uniform",
        "--runs",
        2,
    )
    chosen = ("--backbone", "resnet18_84", "--weights", "random", "--json")
    assert main(command(built, *frozen, *chosen, *few)) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["weights"] == "random"
    assert "the backbone is frozen and its weights are random" in caplog.text


def test_a_backbone_that_learns_starts_at_random(
    built: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    few = ("--tasks", 2, "--draws", 2, "--h", 6, "--samplers", "uniform", "--json")
    assert main(command(built, *few)) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["weights"] == "random"
    assert "random" not in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--unbalanced", "--shot", "2", "3", "4"], r"give it one --shot, the average"),
        (["--shot", "2", "3"], r"3 classes need one shot or 3, got 2"),
        (["--h", "0"], r"--h and --query-h start at 1"),
        (["--tasks", "1"], r"--tasks, --draws and --runs at 2"),
        (["--unbalanced", "--h", "500"], r"lower --h or raise --shot"),
        (["--way", "9"], r"9 classes"),
        (["--image-size", "84"], r"24"),
        (["--run", "nowhere"], r"should be a checkpoint or the folder of a run"),
        (["--out", "nowhere/study.json"], r"no folder nowhere"),
    ],
)
def test_impossible_flags_are_refused(built: Path, options: list[str], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        main(command(built, *options))


def test_queries_are_one_batch() -> None:
    small_task = task((2, 2), queries=60)
    assert lite_settings("paper-lite", 2, small_task).chunk == 60


def test_too_little_memory_is_a_sentence(built: Path) -> None:
    cure = (
        r"out of memory .*; a smaller --image-size, fewer queries \(--query\) or --device cpu need less of it"
    )
    with memory_for(0), pytest.raises(UsageError, match=cure):
        main(command(built))
