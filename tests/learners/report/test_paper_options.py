"""A result says which options of its learner are not those of the published rows beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest

from learners.methods.catalogue import LEARNERS, describe_learner, make_learner
from learners.methods.finetuner import FineTuner
from learners.methods.maml import MAML
from learners.methods.options import OPTION_NAMES, LearnerOptions
from learners.report.notes import result_notes
from learners.report.paper_options import PUBLISHED_OPTIONS, option_notes, used_options
from learners.report.results import NamedResult
from learners.training.presets import PRESETS
from pipeline.pixels import IMAGENET
from tests.learners.report.results import LEARNER, fixed, md, orbit, vtab


def notes(year: str, learner: str, **options: Any) -> list[str]:
    """The notes on a learner with ImageNet's pixels; `year` is that of ORBIT's protocol, "" is Meta-Dataset."""
    described = {"learner": learner, "options": options, "normalisation": [list(part) for part in IMAGENET]}
    evaluation = orbit(year=year, learner=described) if year else md(learner=described)
    return list(option_notes(NamedResult("a", evaluation)))


def test_our_set_encoder_is_another_than_the_papers_beside_table_1() -> None:
    ours = asdict(LearnerOptions())
    (encoder,) = notes("2021", "cnaps", **ours)
    assert encoder == (
        "another set encoder than the paper's: encoder_norm example, theirs batch; encoder_size 84, theirs 0; "
        "encoder_pixels symmetric, theirs imagenet"
    )
    encoder, rest = notes("", "simple_cnaps", **ours)
    assert encoder == (
        "another set encoder than the paper's: encoder_norm example, theirs batch; encoder_size 84, theirs 0"
    )
    assert rest == "other options than the paper's: one_shot zero, theirs official"


def test_an_evaluation_from_before_there_were_options_is_of_our_set_encoder() -> None:
    before = {name: value for name, value in LEARNER.items() if name != "options"}
    (encoder, _) = result_notes(NamedResult("a", replace(vtab(), learner=before)))
    assert encoder.startswith("another set encoder than the paper's: encoder_norm example")


def test_the_papers_options_need_no_note() -> None:
    official = {"encoder_norm": "batch", "encoder_size": 0}
    assert notes("", "simple_cnaps", **official, one_shot="official") == []
    assert notes("2021", "cnaps", **official, encoder_pixels="imagenet") == []
    assert notes("2021", "cnaps", **official, encoder_pixels="backbone") == []  # which are ImageNet's here
    assert notes("2022", "cnaps", encoder_norm="stored", encoder_size=0, encoder_pixels="imagenet") == []
    assert notes("2021", "finetuner", inner_weighting="paper") == []
    assert notes("2021", "finetuner", inner_weighting="paper", inner_steps=50, inner_lr=0.1) == []
    assert notes("2022", "finetuner", inner_optimizer="adam") == []
    assert notes("2022", "finetuner", inner_optimizer="adam", inner_lr=0.001) == []
    assert notes("2022", "finetuner_film") == []
    assert notes("2021", "maml", inner_weighting="paper", clamp=160.0) == []  # which is of training


@pytest.mark.parametrize(
    ("year", "learner", "options", "differing"),
    [
        ("2022", "finetuner", {}, "inner_optimizer sgd, theirs adam; inner_lr 0.1, theirs 0.001"),
        ("2022", "finetuner", {"inner_optimizer": "adam", "inner_steps": 5}, "inner_steps 5, theirs 50"),
        ("2021", "finetuner", {}, "inner_weighting whole, theirs paper"),
        ("2021", "finetuner", {"inner_weighting": "paper", "inner_lr": 1.0}, "inner_lr 1.0, theirs 0.1"),
        ("2021", "maml", {"inner_weighting": "paper", "inner_backbone_lr": 0.5},
         "inner_backbone_lr 0.5, theirs 0.0001"),
        ("2021", "protonets", {}, "backbone_norm example, theirs batch"),
    ],
)  # fmt: skip
def test_other_options_are_named_beside_theirs(
    year: str, learner: str, options: Mapping[str, Any], differing: str
) -> None:
    assert notes(year, learner, **options) == [f"other options than the paper's: {differing}"]


def test_there_is_no_note_where_there_is_no_published_row() -> None:
    assert notes("2022", "maml") == []
    assert result_notes(NamedResult("a", fixed())) == ()
    for damaged in ({}, {"learner": 3}, {"learner": "protonets", "options": [1]}):
        assert not list(option_notes(NamedResult("a", replace(md(), learner=damaged))))


@pytest.mark.parametrize(
    ("preset", "learner"),
    [(name, learner) for name, preset in PRESETS.items() for learner in preset.by_learner],
)
def test_a_run_by_a_preset_needs_no_note(preset: str, learner: str) -> None:
    values = PRESETS[preset].values(learner)
    year = preset.removeprefix("orbit-") if preset.startswith("orbit-") else ""
    assert notes(year, learner, **{name: values[name] for name in OPTION_NAMES if name in values}) == []


def test_the_published_options_are_those_that_the_learner_has() -> None:
    for learners in PUBLISHED_OPTIONS.values():
        for learner, options in learners.items():
            assert options.keys() <= LEARNERS[learner].options


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("maml", ""),
        ("finetuner", ""),
        ("finetuner", "adam"),
        ("finetuner_film", ""),
        ("finetuner_film", "sgd"),
    ],
)
def test_steps_and_rates_left_at_0_are_noted_as_those_of_the_learner(name: str, optimizer: str) -> None:
    options = LearnerOptions(inner_optimizer=optimizer)  # type: ignore[arg-type]
    net = make_learner(name, "resnet18_84", options=options)
    used = used_options(describe_learner(net, name, 84, options=options).described())
    assert used["inner_steps"] == net.inner_steps
    if isinstance(net, FineTuner):
        assert (used["inner_optimizer"], used["inner_lr"]) == (net.optimizer, net.lr)
    if isinstance(net, MAML):
        assert (used["inner_lr"], used["inner_backbone_lr"]) == (net.rates.head, net.rates.backbone)
