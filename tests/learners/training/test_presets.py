"""Presets hold what the papers' codes do, row by row; what they cannot hold is listed in the docs."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.scheduler.scheduler_factory import create_scheduler_v2

from learners.evaluate.protocols import MD_TEST
from learners.methods.catalogue import LEARNERS, make_learner
from learners.networks.backbones import EFFICIENTNET, backbone
from learners.training.components import lite_settings, make_sampler
from learners.training.config import TrainingConfig
from learners.training.flags import parse
from learners.training.preset_choice import list_presets, with_preset
from learners.training.presets import PRESETS
from pipeline.errors import UsageError
from pipeline.pixels import IMAGENET, SYMMETRIC
from pipeline.samplers import MetaDataset
from pipeline.samplers.orbit.rules import protocol_rules
from pipeline.shardset import ShardSet
from pipeline.sources.facts import fact_rows
from tests.pipeline.samplers.synthetic import official_dataset, shard_set

DOCS = (Path(__file__).parents[3] / "docs" / "reproduce-the-paper.md").read_text(encoding="utf-8")
COVERED = [(name, learner) for name, preset in PRESETS.items() for learner in preset.by_learner]
# The table of defaults beside LITE's code: a row, and what the official code has, as settings of `train.py`
LITE_ROWS: dict[str, dict[str, Any]] = {
    "tasks, tasks of a step": {"tasks": 10_000, "tasks_per_step": 16, "tasks_per_epoch": 0},
    "Adam's rate, schedule, decay, clip": {
        "lr": 0.001, "lr_halve_every": 0, "lr_factors": (), "weight_decay": 0.0, "adam_betas": (0.9, 0.999),
        "adam_epsilon": 1e-8,
    },
    "image, H, query batch": {"image_size": 224, "h": 40, "chunk": 40},
    "way, support, query per class": {"max_way": 50, "max_support": 500, "query": 10, "way": 0},
    "H drawn, loss": {"sampler": "paper-lite"},
    "FiLM penalty": {"penalty": 0.001},
    "set encoder": {"encoder_norm": "batch", "encoder_size": 0, "encoder_pixels": "symmetric"},
    "1-shot covariance": {"one_shot": "official"},
    "pixels into the backbone": {"pixels": "symmetric"},
    "training sets": {
        "datasets": ("ilsvrc_2012_v2", "omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "mnist"),
        "hierarchy": "superclass",
    },
    "validation": {
        "validate_every": 5_000, "validate_from": 0, "validate_at_end": False, "validation_tasks": 200,
        "validation_datasets": ("omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "mscoco"),
        "validation_max_way": 50, "validation_max_support": 500,
    },
    "augmentation": {"flip": False, "rotate": False},
    "precision": {"precision": "tf32"},  # torch's default for convolutions, on a GPU that has it
    "learner and network": {"learner": "simple_cnaps", "backbone": "efficientnet_b0", "weights": "pretrained"},
}  # fmt: skip
LITE_84_ROWS: dict[str, Any] = {
    "backbone": "efficientnet_b0_84", "image_size": 84, "max_way": 40, "max_support": 300, "sampler": "exact",
    "chunk": 501, "tasks": 35_000, "penalty": 0.001 * 16,
}  # fmt: skip
SMALL_TASK_ROWS: dict[str, Any] = {"max_way": 30, "max_support": 40, "tasks": 15_000}
ORBIT_2021_ROWS: dict[str, dict[str, Any]] = {
    "tasks": {"tasks": 10 * 44 * 50, "tasks_per_step": 16, "tasks_per_epoch": 44 * 50},
    "rates": {"lr": 1e-4, "backbone_lr_scale": 0.1, "lr_factors": (), "weight_decay": 0.0},
    "image, H, clips of a batch": {"image_size": 224, "h": 8, "chunk": 8 * 8},
    "validation": {
        "validate_every": 2_200, "validate_from": 5 * 2_200, "validate_at_end": True, "validation_tasks": 6 * 5,
        "validation_datasets": ("orbit",),
    },
    "loss and penalty": {"sampler": "paper-orbit", "penalty": 0.001},
    "task law": {"orbit": "2021", "mode": "clu-ve", "orbit_caps": False, "datasets": ("orbit",)},
    "set encoder": {"encoder_norm": "batch", "encoder_size": 0, "encoder_pixels": "imagenet"},
    "1-shot covariance": {"one_shot": "official"},
    "pixels into the backbone": {"pixels": "imagenet"},
    "network": {"backbone": "efficientnet_b0", "weights": "pretrained"},
}  # fmt: skip
ORBIT_2021_MAML: dict[str, Any] = {
    "backbone": "resnet18_84", "image_size": 84, "orbit_caps": True, "lr": 1e-5, "backbone_lr_scale": 0.1,
    "inner_steps": 15, "inner_lr": 0.001, "inner_backbone_lr": 0.1 * 0.001, "inner_weighting": "paper",
    "clamp": 10.0 * 16, "chunk": 256 * 8,
}  # fmt: skip
ORBIT_2022_ROWS: dict[str, Any] = {
    "orbit": "2022", "tasks": 30 * 44 * 50, "tasks_per_step": 16, "tasks_per_epoch": 44 * 50, "h": 16, "chunk": 256,
    "lr": 5e-6, "backbone_lr_scale": 1.0, "weight_decay": 0.2, "adam_betas": (0.9, 0.98), "adam_epsilon": 1e-6,
    "validate_every": 44 * 50, "validate_from": 0, "validation_tasks": 6 * 30, "image_size": 224,
    "sampler": "paper-orbit", "pixels": "imagenet",
}  # fmt: skip


def config(preset: str, learner: str = "", *more: object) -> TrainingConfig:
    """The settings of `train.py --preset ...`."""
    words = ["--preset", preset, "--shards", "shards/x", *(["--learner", learner] if learner else []), *more]
    return parse([str(word) for word in words])[0]


def expect(settings: TrainingConfig, official: dict[str, Any]) -> None:
    assert {name: getattr(settings, name) for name in official} == official


@pytest.mark.parametrize("row", LITE_ROWS)
def test_lite_vtab_md_has_the_value_of_the_official_code(row: str) -> None:
    expect(config("lite-vtab-md"), LITE_ROWS[row])


@pytest.mark.parametrize("row", ORBIT_2021_ROWS)
def test_orbit_2021_has_the_value_of_the_official_code(row: str) -> None:
    expect(config("orbit-2021"), ORBIT_2021_ROWS[row])


def test_the_84_pixel_run_and_the_small_tasks_differ_from_lites_run_as_their_commands_do() -> None:
    for preset, rows in (("lite-vtab-md-84", LITE_84_ROWS), ("lite-small-tasks", SMALL_TASK_ROWS)):
        expect(config(preset), rows)
        shared = {k: v for row in LITE_ROWS.values() for k, v in row.items() if k not in rows}
        expect(config(preset), shared)


def test_each_learner_of_orbit_has_what_its_command_has() -> None:
    expect(config("orbit-2021", "protonets"), {"h": 16, "backbone_norm": "batch", "lr": 1e-4})
    expect(config("orbit-2021", "maml"), ORBIT_2021_MAML)
    expect(config("orbit-2021", "cnaps"), {"encoder_norm": "batch", "one_shot": "zero"})
    for learner in PRESETS["orbit-2022"].by_learner:
        expect(config("orbit-2022", learner), ORBIT_2022_ROWS)
    stored = {"encoder_norm": "stored", "encoder_size": 0, "encoder_pixels": "imagenet"}
    expect(config("orbit-2022", "cnaps"), stored)
    expect(config("orbit-2022", "simple_cnaps"), {**stored, "one_shot": "official"})
    expect(config("orbit-2022", "protonets_cosine"), {"temperature": 1.0, "backbone_norm": "batch"})


def test_the_facts_behind_the_numbers_of_orbit() -> None:
    users = {row[0]: row[3].split() for row in fact_rows("orbit")}
    assert (len(users["train"]), len(users["validation"])) == (44, 6)
    for protocol, validation in (("2021", 5), ("2022", 30)):
        assert protocol_rules(protocol, "train", {}).tasks_per_user == 50  # type: ignore[arg-type]
        assert protocol_rules(protocol, "validation", {}).tasks_per_user == validation  # type: ignore[arg-type]
    assert protocol_rules("2021", "train", {}).clip_length == 8
    assert protocol_rules("2022", "train", {}).clip_length == 1


def test_what_cannot_be_equal_is_listed_in_the_docs_and_nothing_else_is() -> None:
    section = DOCS.partition("## What remains different")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| ([^|]+?) \|", section, re.MULTILINE)) - {"what", "---"}
    assert listed == {d.topic for preset in PRESETS.values() for d in preset.differences}


def test_the_page_tests_the_last_weights_and_the_best_ones() -> None:
    assert "--checkpoint runs/lite-vtab-md --protocol md" in DOCS
    assert "--checkpoint runs/lite-vtab-md/last.safetensors --protocol md" in DOCS


def test_lites_sets_are_not_those_it_tests_alone() -> None:
    settings = config("lite-vtab-md")
    assert set(MD_TEST) - set(settings.datasets) == {"traffic_sign", "mscoco"}
    assert set(settings.datasets) - set(MD_TEST) == {"ilsvrc_2012_v2", "mnist"}


def test_orbits_rates_since_2022_are_those_of_timms_scheduler() -> None:
    settings = config("orbit-2022", "protonets")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=settings.lr)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="multistep", num_epochs=30, decay_milestones=[15], decay_rate=0.5, warmup_lr=1e-6,
        warmup_epochs=5,
    )  # fmt: skip
    for epoch in range(30):
        official = optimizer.param_groups[0]["lr"]
        for tasks in (2_200 * epoch, 2_200 * epoch + 2_192):
            assert settings.lr * settings.rate_factor(tasks) == pytest.approx(official, rel=1e-9)
        scheduler.step(epoch + 1)


def test_film_of_orbit_2022_is_at_the_norms_that_its_code_tags() -> None:
    net = backbone("efficientnet_b0", film=config("orbit-2022").film_places)
    tagged = [
        len(norm.weight)
        for name, norm in net.net.named_modules()
        if isinstance(norm, torch.nn.BatchNorm2d)
        and (
            name in ("bn1", "bn2") or (name.endswith("bn2") and name.startswith("blocks") and name[7] != "0")
        )
    ]
    assert len(tagged) == 17
    assert sorted(net.film_channels) == sorted(tagged)


def test_the_penalty_is_undivided_where_the_official_loop_has_it_so() -> None:
    assert lite_settings(config("lite-vtab-md")).penalty == pytest.approx(16 * 0.001)
    assert lite_settings(config("lite-vtab-md-84")).penalty == pytest.approx(16 * 0.001)


@pytest.mark.parametrize(("preset", "learner"), COVERED)
def test_every_preset_makes_its_learner_with_its_options_and_pixels(preset: str, learner: str) -> None:
    settings = config(preset, learner)
    made = make_learner(
        settings.learner, settings.backbone, options=settings.options,
        normalisation={"symmetric": SYMMETRIC, "imagenet": IMAGENET}[settings.pixels],
    )  # fmt: skip
    assert made.backbone.norm == settings.backbone_norm
    assert made.backbone.normalisation == (IMAGENET if preset.startswith("orbit") else SYMMETRIC)
    assert settings.overridden == ()
    assert settings.first_weights == "pretrained"


def test_the_papers_weights_are_the_autoaugment_ones() -> None:
    assert EFFICIENTNET == "tf_efficientnet_b0.aa_in1k"


# Choosing one


def test_flags_override_a_preset_and_the_settings_say_which() -> None:
    changed = config("lite-vtab-md", "", "--h", 8, "--tasks", 160, "--out", "runs/x")
    assert (changed.h, changed.tasks, changed.chunk) == (8, 160, 40)
    assert changed.preset == "lite-vtab-md"
    assert changed.overridden == ("h", "tasks")


def test_a_setting_that_the_preset_leaves_out_departs_from_it_as_well() -> None:
    where = ("--seed", 3, "--device", "cpu", "--threads", 2, "--save-every", 10)
    assert config("lite-vtab-md", "", *where).overridden == ()
    augmented = config("lite-vtab-md", "", "--flip", "--precision", "bfloat16", "--lr-halve-every", 100)
    assert augmented.overridden == ("flip", "lr_halve_every", "precision")
    assert config("lite-vtab-md", "", "--no-flip").overridden == ()


def test_a_flag_that_says_what_the_preset_says_overrides_nothing() -> None:
    same = config(
        "lite-vtab-md",
        "",
        "--h",
        40,
        "--validation-datasets",
        *LITE_ROWS["validation"]["validation_datasets"],
    )
    assert same.overridden == ()


def test_the_file_of_a_run_gives_its_preset_and_overrides_again(tmp_path: Path) -> None:
    first = config("orbit-2021", "protonets", "--h", 4)
    first.save(tmp_path)
    again, _ = parse(["--config", str(tmp_path / "config.json")])
    kept = replace(first, decoder="turbo")  # what auto stands for
    assert again == kept
    assert TrainingConfig.read(tmp_path) == kept


def test_a_preset_refuses_learners_whose_run_was_not_published() -> None:
    with pytest.raises(
        UsageError, match=r"LITE on VTAB\+MD.*--learner is one of simple_cnaps; got 'protonets'"
    ):
        config("lite-vtab-md", "protonets")
    with pytest.raises(UsageError, match=r"simple_cnaps, cnaps, protonets, protonets_cosine; got 'maml'"):
        config("orbit-2022", "maml")


def test_an_unknown_preset_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"--preset is one of lite-vtab-md, .*orbit-2022, list; got 'lite'"):
        with_preset({"preset": "lite"}, {})


def test_the_list_needs_no_shards_and_has_every_setting_beside_the_official_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(["--preset", "list"])
    assert stopped.value.code == 0
    printed = capsys.readouterr().out
    plain = " ".join(printed.split())
    for name, preset in PRESETS.items():
        assert f"{name} (faithful): " in plain
        assert all(f"{difference.topic}: " in plain for difference in preset.differences)
    rows = [re.split(r"\s{2,}", line.strip()) for line in printed.splitlines()]
    assert ["--h", "40", "--h 40", "40"] in rows
    assert ["--encoder-size", "0", "the images' size", "84"] in rows
    assert ["protonets: --h", "16", "--num_lite_samples 16, clips", "40"] in rows
    assert ["--lr", "5e-06", "--learning_rate 5e-6, Adam", "0.001"] in rows


def test_the_list_shows_every_setting_of_every_preset() -> None:
    text = list_presets(asdict(config("orbit-2022")))
    for preset in PRESETS.values():
        settings = {name for own in (preset.settings, *preset.by_learner.values()) for name in own}
        assert all(f"--{name.replace('_', '-')}" in text for name in settings)


def test_the_settings_of_presets_are_settings_of_train_py_that_apply_to_the_learner() -> None:
    for name, learner in COVERED:
        given = PRESETS[name].values(learner)
        assert set(given) <= set(TrainingConfig.__dataclass_fields__)
        assert config(name, learner).options.changed() <= LEARNERS[learner].options


# How classes are drawn


def test_superclass_draws_imagenets_classes_alike_and_omniglots_by_alphabet() -> None:
    shards = shard_set(official_dataset("ilsvrc_2012_v2"), official_dataset("omniglot"))
    ways = {how: mean_way(shards, how, "ilsvrc_2012_v2") for how in ("auto", "superclass", "flat")}
    assert ways["auto"] < 22
    assert ways["superclass"] > 25
    assert ways["superclass"] == ways["flat"]
    assert mean_way(shards, "superclass", "omniglot") == mean_way(shards, "auto", "omniglot")
    assert mean_way(shards, "superclass", "omniglot") < 22 < mean_way(shards, "flat", "omniglot")


def mean_way(shards: ShardSet, hierarchy: str, dataset: str) -> float:
    settings = config("lite-vtab-md", "", "--hierarchy", hierarchy, "--datasets", dataset)
    sampler = make_sampler(shards, settings, "train", 0, settings.datasets)
    assert isinstance(sampler, MetaDataset)
    return sum(len(sampler[number].classes) for number in range(100)) / 100
