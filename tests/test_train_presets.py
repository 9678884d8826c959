"""A preset from the command line to the report, through train.py on small shards."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import train
from learners.evaluate.__main__ import main as evaluate
from learners.evaluate.records import EvaluationResult
from learners.networks import backbones
from learners.networks.weights import save_weights
from learners.report.notes import result_notes
from learners.report.results import read_results
from learners.runs import LAST_CHECKPOINT, load_run, read_checkpoint, read_run_settings
from learners.training.config import TrainingConfig
from learners.training.journal import read_records
from pipeline.errors import IntegrityError, PipelineError, UsageError
from pipeline.pixels import SYMMETRIC
from tests.learners.training.tiny_md import MD_SPLITS, one_thread, small_run, tiny_md, tiny_orbit
from tests.test_train import run

FEW = ("omniglot", "mnist", "mscoco")
OWN = ("--datasets", "omniglot", "mnist", "--validation-datasets", "mscoco")
single_thread = pytest.fixture(scope="module", autouse=True)(one_thread)


@pytest.fixture(scope="module")
def md(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_md(tmp_path_factory.mktemp("presets") / "md")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the datasets."""
    return tiny_md(tmp_path_factory.mktemp("few") / "md", FEW)


@pytest.fixture(scope="module")
def orbit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_orbit(tmp_path_factory.mktemp("presets"))


def plain(shards: Path, out: Path, *more: object) -> list[str]:
    """A small run without a preset: four classes, three support images."""
    fixed = ("--way", 4, "--shot", 3, "--query", 3, "--h", 8, "--tasks", 4, "--validate-every", 0)
    return small_run("--shards", shards, "--out", out, "--learner", "protonets", *fixed, *more)


def ends(argv: list[str], error: type[PipelineError], message: str) -> None:
    with pytest.raises(error, match=message):
        train.main(argv)


# A preset from the command line to the report


@pytest.fixture(scope="module")
def lite_run(md: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run of LITE's preset, made small, and what it printed."""
    out = tmp_path_factory.mktemp("runs") / "lite"
    flags = ("--shards", md, "--preset", "lite-vtab-md", "--out", out, "--tasks", 4, "--validate-every", 2)
    process = run(*small_run(*flags))
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return out, said


def test_the_log_names_preset_kind_and_what_was_overridden(lite_run: tuple[Path, str]) -> None:
    changed = "backbone, image_size, tasks, tasks_per_step, validate_every, validation_tasks, weights"
    assert f"preset lite-vtab-md (faithful), overridden: {changed}\n" in lite_run[1]
    assert "warning: THE BACKBONE IS FROZEN AND ITS WEIGHTS ARE RANDOM" in lite_run[1]


def test_the_settings_of_the_run_say_preset_and_overridden(lite_run: tuple[Path, str]) -> None:
    saved = TrainingConfig.read(lite_run[0])
    assert (saved.preset, saved.sampler, saved.hierarchy) == ("lite-vtab-md", "paper-lite", "superclass")
    assert {"tasks", "weights"} < set(saved.overridden)
    settings = read_run_settings(lite_run[0])
    assert (settings.preset, settings.weights, settings.frozen_random) == ("lite-vtab-md", "random", True)


def test_validation_is_on_the_presets_datasets_and_not_at_the_end(lite_run: tuple[Path, str]) -> None:
    (record,) = [line for line in read_records(lite_run[0]) if line["kind"] == "validation"]
    assert record["tasks"] == 2
    assert list(record["datasets"]) == [
        "omniglot",
        "aircraft",
        "cu_birds",
        "dtd",
        "quickdraw",
        "fungi",
        "mscoco",
    ]


def test_a_batchnorm_encoder_of_full_size_comes_back_as_one(lite_run: tuple[Path, str]) -> None:
    loaded = load_run(lite_run[0])
    options = loaded.info.options
    assert (options.encoder_norm, options.encoder_size, options.one_shot) == ("batch", 0, "official")
    assert loaded.net.encoder is not None
    kinds = {type(module) for module in loaded.net.encoder.modules()}
    assert torch.nn.BatchNorm2d in kinds
    assert torch.nn.GroupNorm not in kinds
    assert loaded.info.normalisation == SYMMETRIC


def test_an_evaluation_and_a_report_tell_the_faithful_run_apart(
    lite_run: tuple[Path, str], md: Path, tmp_path: Path
) -> None:
    flags = ["--shards", str(md), "--protocol", "md", "--tasks", "1", "--device", "cpu", "--threads", "1"]
    assert evaluate([*flags, "--checkpoint", str(lite_run[0]), "--out", str(tmp_path / "lite")]) == 0
    result = EvaluationResult.load(tmp_path / "lite")
    assert result.learner["preset"] == "lite-vtab-md"
    assert "tasks" in result.learner["overridden"]
    assert result.learner["weights"] == "random"
    notes = result_notes(read_results([tmp_path / "lite"])[0])
    assert any(note.startswith("trained with preset lite-vtab-md (faithful), overridden: ") for note in notes)
    assert any("began with RANDOM weights" in note for note in notes)
    own = tmp_path / "own"
    assert train.main(plain(md, own, "--datasets", "omniglot")) == 0
    assert evaluate([*flags, "--checkpoint", str(own), "--out", str(tmp_path / "ours")]) == 0
    ours = EvaluationResult.load(tmp_path / "ours")
    assert ours.learner["preset"] == ""
    assert not any("preset" in note or "RANDOM" in note for note in ours.notes)


@pytest.mark.parametrize("learner", ["simple_cnaps", "cnaps", "protonets", "maml"])
def test_orbits_preset_trains_each_learner_that_it_covers(orbit: Path, tmp_path: Path, learner: str) -> None:
    flags = ("--shards", orbit, "--preset", "orbit-2021", "--learner", learner, "--out", tmp_path / "run")
    quick = ("--tasks", 3, "--tasks-per-epoch", 0, "--validate-from", 0, "--chunk", 16)
    assert train.main(small_run(*flags, *quick, *(("--inner-steps", 1) if learner == "maml" else ()))) == 0
    steps = [line["tasks"] for line in read_records(tmp_path / "run") if line["kind"] == "step"]
    assert steps == [2, 3]


def test_orbits_preset_of_2022_trains_with_its_own_adam(orbit: Path, tmp_path: Path) -> None:
    flags = ("--shards", orbit, "--preset", "orbit-2022", "--learner", "protonets_cosine", "--out", tmp_path)
    assert train.main(small_run(*flags, "--tasks", 4, "--lr-factors", "0:0.5", "2:0.25")) == 0
    assert load_run(tmp_path).net.temperature == 1.0
    (group, *_) = read_checkpoint(tmp_path / LAST_CHECKPOINT)[2]["optimizer"]["param_groups"]
    assert (group["weight_decay"], group["eps"], tuple(group["betas"])) == (0.2, 1e-6, (0.9, 0.98))
    assert group["lr"] == pytest.approx(5e-6 * 0.25)


def test_every_name_of_the_presets_is_in_the_small_set(md: Path) -> None:
    assert {path.name for path in md.iterdir()} == set(MD_SPLITS)


# What a preset refuses before anything is trained


def test_missing_datasets_are_named_with_the_command_that_builds_them(few: Path, tmp_path: Path) -> None:
    missing = "ilsvrc_2012_v2, aircraft, cu_birds, dtd, quickdraw, fungi"
    built = rf"has only mnist, mscoco, omniglot\. Build them: python -m pipeline\.build --dataset md --source DOWNLOADS --out {few}$"
    flags = ("--shards", few, "--preset", "lite-vtab-md", "--out", tmp_path / "x", "--tasks", 2)
    ends(small_run(*flags), UsageError, rf"--preset lite-vtab-md needs {missing}, and .* {built}")
    assert not (tmp_path / "x").exists()


def test_orbits_build_command_is_that_of_one_dataset(few: Path, tmp_path: Path) -> None:
    flags = ("--shards", few, "--preset", "orbit-2022", "--out", tmp_path / "x")
    built = rf"needs orbit, and .*Build it: python -m pipeline\.build --dataset orbit --source DOWNLOADS --out {few}/orbit$"
    ends(small_run(*flags), UsageError, built)


def test_other_datasets_in_place_of_the_presets_are_an_override(few: Path, tmp_path: Path) -> None:
    flags = ("--shards", few, "--preset", "lite-vtab-md", "--out", tmp_path, *OWN, "--tasks", 2)
    assert train.main(small_run(*flags)) == 0
    assert {"datasets", "validation_datasets"} < set(TrainingConfig.read(tmp_path).overridden)


def test_a_limited_dataset_is_said_in_a_faithful_run(
    tmp_path: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tiny_md(tmp_path / "md", ("omniglot",), limit=4)
    for name in ("mnist", "mscoco"):
        (shards / name).symlink_to(few / name)
    flags = ("--shards", shards, "--preset", "lite-vtab-md", "--out", tmp_path / "run", *OWN, "--tasks", 2)
    assert train.main(small_run(*flags)) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "--limit-per-class" in line]
    assert said == [
        "warning: omniglot was built with --limit-per-class 4; the run of --preset lite-vtab-md had all of its images"
    ]


def test_a_learner_that_the_preset_does_not_cover_is_refused(md: Path, tmp_path: Path) -> None:
    flags = ("--shards", md, "--preset", "lite-vtab-md", "--learner", "cnaps", "--out", tmp_path / "x")
    ends(small_run(*flags), UsageError, r"--learner is one of simple_cnaps; got 'cnaps'")


def test_weights_of_another_architecture_are_refused(md: Path, tmp_path: Path) -> None:
    file = tmp_path / "resnet18.safetensors"
    save_weights(file, backbones.backbone("resnet18"))
    flags = small_run("--shards", md, "--preset", "lite-vtab-md", "--out", tmp_path / "x")
    ends([*flags, "--weights", str(file)], IntegrityError, r"resnet18\.safetensors")
    assert not (tmp_path / "x").exists()
