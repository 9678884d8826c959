"""What a run begins with, how long its steps are, and when it validates, through train.py on small shards."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch

import train
from learners.networks import backbones
from learners.networks.weights import save_weights
from learners.runs import BEST_CHECKPOINT, load_run, read_run_settings
from learners.training.components import initial_learner
from learners.training.config import TrainingConfig
from learners.training.flags import parse
from learners.training.journal import read_records
from pipeline.errors import PipelineError, SourceMissing, UsageError
from pipeline.loader.episode import Episode
from pipeline.pixels import IMAGENET
from tests.learners.training.tiny_md import SIDE, one_thread, small_run, tiny_md
from tests.small_runs import same, weights
from tests.test_train import run

FEW = ("omniglot", "mnist", "mscoco")
OWN = ("--datasets", "omniglot", "mnist", "--validation-datasets", "mscoco")
single_thread = pytest.fixture(scope="module", autouse=True)(one_thread)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the datasets."""
    return tiny_md(tmp_path_factory.mktemp("few") / "md", FEW)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub that cannot be reached; the list has what was asked for."""
    asked: list[str] = []

    def refuse(cfg: Any) -> None:
        asked.append(cfg.hf_hub_id)
        raise OSError("Name or service not known")

    monkeypatch.setattr(backbones, "_check_hub", refuse)
    return asked


def plain(shards: Path, out: Path, *more: object) -> list[str]:
    """A small run without a preset: four classes, three support images."""
    fixed = ("--way", 4, "--shot", 3, "--query", 3, "--h", 8, "--tasks", 4, "--validate-every", 0)
    return small_run("--shards", shards, "--out", out, "--learner", "protonets", *fixed, *more)


def ends(argv: list[str], error: type[PipelineError], message: str) -> None:
    with pytest.raises(error, match=message):
        train.main(argv)


# First weights


def test_a_frozen_backbone_without_weights_ends_at_once_with_one_sentence(
    few: Path, tmp_path: Path, no_hub: list[str]
) -> None:
    flags = ["--shards", str(few), "--h", "40", "--image-size", str(SIDE), "--out", str(tmp_path / "x")]
    needed = (
        r"the weights of tf_efficientnet_b0\.aa_in1k could not be fetched \(Name or service not known\)\. "
        r"Bring the file and name it with --weights FILE: model\.safetensors from "
        r"https://huggingface\.co/timm/tf_efficientnet_b0\.aa_in1k or https://.*/tf_efficientnet_b0_aa-827b6e33\.pth "
        r"\(about 21 MB, .*sha256 begins with 827b6e33\)\. --weights random trains without"
    )
    ends(flags, SourceMissing, needed)
    assert no_hub == ["timm/tf_efficientnet_b0.aa_in1k"]
    assert not (tmp_path / "x").exists()


def test_a_hub_that_does_not_answer_is_asked_once_and_not_for_long(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def silent(_request: object, timeout: float) -> None:
        waited.append(timeout)
        raise URLError(TimeoutError("timed out"))

    monkeypatch.setattr("urllib.request.urlopen", silent)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    flags = ["--shards", str(few), "--image-size", str(SIDE), "--out", str(tmp_path / "x")]
    ends(flags, SourceMissing, r"could not be fetched \(<urlopen error timed out>\)")
    assert len(waited) == 1
    assert waited[0] <= 10


def test_the_84_pixel_preset_names_the_file_that_only_its_authors_have(few: Path, tmp_path: Path) -> None:
    flags = (
        "--shards",
        few,
        "--preset",
        "lite-vtab-md-84",
        "--out",
        tmp_path / "x",
        "--image-size",
        SIDE,
        *OWN,
    )
    ends(
        [*map(str, flags)],
        UsageError,
        r"efficientnet-b0_84\.pt in\s+https://github\.com/cambridge-mlg/LITE.*--weights",
    )


def test_a_backbone_that_learns_begins_with_random_weights_without_asking(few: Path, tmp_path: Path) -> None:
    argv = [word for word in plain(few, tmp_path) if word not in ("--weights", "random")]
    assert train.main(argv) == 0
    assert TrainingConfig.read(tmp_path).weights == "random"


def test_settings_of_older_runs_that_do_not_say_weights_mean_random_ones(few: Path, tmp_path: Path) -> None:
    values = asdict(parse(plain(few, tmp_path, "--learner", "cnaps"))[0]) | {"weights": ""}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert TrainingConfig.read(tmp_path).weights == "random"
    assert read_run_settings(tmp_path).frozen_random


def test_a_resumed_run_fetches_nothing_and_keeps_the_pixels_of_its_weights(few: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "conv4.safetensors", tmp_path / "run"
    save_weights(file, backbones.backbone("conv4", normalisation=IMAGENET))
    argv = [str(file) if word == "random" else word for word in plain(few, out, "--learner", "cnaps")]
    assert train.main([*argv, "--tasks", "2"]) == 0
    settings = json.loads((out / "config.json").read_text())
    assert settings["weights"] == str(file)
    (out / "config.json").write_text(
        json.dumps(settings | {"weights": "pretrained"})
    )  # conv4 has none to fetch
    assert train.main(["--resume", str(out), "--tasks", "4"]) == 0
    assert load_run(out).info.normalisation == IMAGENET != backbones.backbone("conv4").normalisation


def test_a_frozen_random_backbone_that_stays_at_chance_is_told_after_200_episodes(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--way", 5, "--shot", 1, "--query", 1, "--h", 5, "--tasks", 208, "--lr", 1e-9)
    argv = plain(few, tmp_path, "--learner", "cnaps", *small, "--no-validate-at-end")
    assert train.main([*argv, "--tasks-per-step", "52"]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert said[0].startswith("warning: THE BACKBONE IS FROZEN AND ITS WEIGHTS ARE RANDOM")
    assert len(said) == 2
    assert said[1].startswith("warning: after 208 episodes the accuracy is that of guessing")
    assert said[1].endswith("the backbone is frozen and its weights are random: give --weights")


# Short steps, epochs, and when to validate


def test_tasks_that_are_no_multiple_of_the_step_end_with_a_short_one(few: Path, tmp_path: Path) -> None:
    assert train.main(plain(few, tmp_path / "five", "--tasks", 5)) == 0
    steps = [line["tasks"] for line in read_records(tmp_path / "five") if line["kind"] == "step"]
    assert steps == [2, 4, 5]
    assert train.main(plain(few, tmp_path / "parts", "--tasks", 4)) == 0
    assert train.main(["--resume", str(tmp_path / "parts"), "--tasks", "5"]) == 0
    assert same(weights(tmp_path / "parts"), weights(tmp_path / "five"))


def test_a_short_step_counts_its_tasks_like_any_other(few: Path, tmp_path: Path) -> None:
    """Adam's first step is lr * sign(gradient), its mean (1 - beta) * gradient: it shows the gradient's scale."""
    means = {}
    for size in (2, 4):
        out = tmp_path / str(size)
        assert train.main([*plain(few, out, "--tasks", 2), "--tasks-per-step", str(size)]) == 0
        tensors = weights(out)
        means[size] = {
            name: tensor for name, tensor in tensors.items() if "exp_avg/" in name or name.endswith("exp_avg")
        }
    assert means[2]
    for name, whole in means[2].items():
        torch.testing.assert_close(means[4][name], whole / 2)


def test_an_epoch_ends_its_step_and_the_next_begins_another(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("--tasks", 13, "--tasks-per-epoch", 5, "--validate-every", 5, "--validate-from", 8)
    assert train.main(plain(few, out, *flags)) == 0
    records = read_records(out)
    assert [line["tasks"] for line in records if line["kind"] == "step"] == [2, 4, 5, 7, 9, 10, 12, 13]
    assert [line["tasks"] for line in records if line["kind"] == "validation"] == [10, 13]


@pytest.mark.slow
def test_two_processes_share_a_short_step(few: Path, tmp_path: Path) -> None:
    for ranks in (1, 2):
        argv = [*plain(few, tmp_path / str(ranks), "--tasks", 6, "--ordered"), "--tasks-per-step", "4"]
        process = run(*argv, ranks=ranks)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
    assert same(weights(tmp_path / "1"), weights(tmp_path / "2"))
    process = run(*plain(few, tmp_path / "odd", "--tasks", 5), ranks=2)
    said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "--tasks 5 in steps of 2 cannot be shared by 2 processes" in said


def test_validation_is_on_the_datasets_and_within_the_limits_that_are_asked(
    few: Path, tmp_path: Path
) -> None:
    asked = ("--validation-datasets", "mscoco", "--validate-every", 2, "--no-validate-at-end")
    varied = ("--way", 0, "--max-way", 5, "--max-support", 10, "--validation-max-support", 25)
    assert train.main(plain(few, tmp_path, *asked, *varied)) == 0
    (record,) = [line for line in read_records(tmp_path) if line["kind"] == "validation"]
    assert (record["tasks"], list(record["datasets"])) == (2, ["mscoco"])
    assert (tmp_path / BEST_CHECKPOINT).exists()


def test_the_limits_of_validation_tasks_are_their_own(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def note_size(_learner: object, episode: Episode, *_: object) -> float:
        sizes.append(len(episode.support))
        return 0.5

    monkeypatch.setattr("learners.training.validate.accuracy", note_size)
    varied = ("--way", 0, "--max-way", 5, "--max-support", 5, "--validation-max-support", 25)
    asked = ("--validation-tasks", 40, "--validation-datasets", "omniglot")
    argv = plain(few, tmp_path, *varied, "--tasks", 2)
    assert train.main([*argv, *map(str, asked)]) == 0
    assert len(sizes) == 40
    assert 5 < max(sizes) <= 25


def test_the_penalty_weighs_the_regularisers(few: Path, tmp_path: Path) -> None:
    """With a weight so large that nothing else counts, Adam moves every regulariser towards zero."""
    out = tmp_path / "run"
    argv = plain(few, out, "--learner", "cnaps", "--penalty", 1e9, "--tasks", 2, "--lr", 1e-6)
    assert train.main(argv) == 0
    config = TrainingConfig.read(out)
    before = dict(initial_learner(config, torch.device("cpu")).named_parameters())
    after = dict(load_run(out).net.named_parameters())
    moved = [name for name in before if "regulariser" in name]
    assert moved
    for name in moved:
        assert (after[name].abs() <= before[name].abs()).float().mean() > 0.99
