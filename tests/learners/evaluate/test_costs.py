from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Final
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from learners.evaluate.costs import LearnerMacs, adapt_macs, adaptation_steps, count_parameters, network_macs
from learners.heads.base import Head, State
from learners.labels import Labels
from learners.learner import MetaLearner, StagedLearner
from learners.methods.catalogue import LEARNERS, make_learner
from learners.methods.cnaps import CNAPs
from learners.methods.descent import SupportDescent
from learners.methods.finetuner import FineTuner
from learners.methods.maml import MAML
from learners.methods.options import LearnerOptions
from learners.methods.protonets import ProtoNets
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import Backbone, backbone
from learners.networks.set_encoder import SetEncoder
from learners.report.published import ORBIT_2021
from pipeline.errors import UsageError
from pipeline.pixels import SYMMETRIC
from tests.learners.small import toy

FRAMES: Final = 3040  # of a support set, the mean over ORBIT's test tasks of both modes
WAY: Final = 9  # 9.3, the mean over ORBIT's test users
CLIP: Final = 8
SIZES: Final = {"resnet18_84": 84, "resnet18": 224, "efficientnet_b0": 224}
TABLE: Final = """
finetuner    resnet18_84     317.70 50FB 11171904
finetuner    resnet18        546.57 50FB 11176512
finetuner    efficientnet_b0 121.02 50FB  4007548
maml         resnet18_84      95.31 15FB 11171904
maml         resnet18        163.97 15FB 11176512
maml         efficientnet_b0  36.31 15FB  4007548
protonets    resnet18_84       3.18 1F   11171904
protonets    resnet18          5.47 1F   11176512
protonets    efficientnet_b0   1.21 1F    4007548
cnaps        resnet18_84       3.48 1F   12754629
cnaps        resnet18          7.64 1F   12759237
cnaps        efficientnet_b0   3.38 1F   10588289
simple_cnaps resnet18_84       3.48 1F   11966144
simple_cnaps resnet18          7.64 1F   11970752
simple_cnaps efficientnet_b0   3.39 1F    5667964
"""  # 10^12 MACs as printed, steps, parameters
ROWS: Final = [tuple(line.split()) for line in TABLE.strip().splitlines()]


OFFICIAL: Final = LearnerOptions(encoder_norm="batch", encoder_size=0)
OURS: Final = {  # 10^12 MACs with our set encoder, which sees 84 pixels
    "cnaps": {"resnet18_84": 3.48, "resnet18": 5.77, "efficientnet_b0": 1.51},
    "simple_cnaps": {"resnet18_84": 3.48, "resnet18": 5.77, "efficientnet_b0": 1.52},
}


@cache
def network(name: str) -> Backbone:
    """Built once: its cost does not depend on the learner."""
    return backbone(name, film=True)


def learner(name: str, net: str, options: LearnerOptions = OFFICIAL) -> MetaLearner:
    """A learner of the catalogue, with the options if they apply to it."""
    applies = "encoder_norm" in LEARNERS[name].options
    with patch("learners.methods.catalogue.backbone", lambda name, **_: network(name)):
        return make_learner(name, net, options=options if applies else LearnerOptions())


@pytest.mark.parametrize(("name", "net", "macs", "passes", "count"), ROWS)
def test_a_row_of_the_papers_table_1(name: str, net: str, macs: str, passes: str, count: str) -> None:
    model = learner(name, net)
    counted = adapt_macs(model, SIZES[net], FRAMES, WAY, CLIP)
    assert counted is not None
    printed = 1e12 * float(macs)
    assert abs(counted - printed) <= 0.005e12 + 4e-5 * printed  # the last digit, or the fifth
    assert adaptation_steps(model) == passes
    assert count_parameters(model) == int(count)


def test_these_are_all_rows_of_table_1_as_reports_print_them() -> None:
    """In the same order; the first column is the learner's name there."""
    assert len(ROWS) == len(ORBIT_2021) == 15
    for (name, net, macs, passes, count), row in zip(ROWS, ORBIT_2021, strict=True):
        assert row.cost is not None
        assert name.startswith(row.learner.split(" +")[0].lower().replace(" ", "_"))
        assert (row.image_size, row.backbone.startswith("Eff")) == (SIZES[net], net == "efficientnet_b0")
        assert row.cost.macs == pytest.approx(1e12 * float(macs))
        assert row.cost.steps == passes
        assert abs(row.cost.parameters - int(count)) < 5e3  # of millions with two decimals


@pytest.mark.parametrize("net", SIZES)
@pytest.mark.parametrize("name", OURS)
def test_our_set_encoder_is_counted_as_it_is_and_not_as_the_papers(name: str, net: str) -> None:
    counted = adapt_macs(learner(name, net, LearnerOptions()), SIZES[net], FRAMES, WAY, CLIP)
    assert counted == pytest.approx(1e12 * OURS[name][net], abs=0.005e12)


def test_the_papers_set_encoder_costs_the_same_with_stored_statistics() -> None:
    stored = learner("cnaps", "resnet18", replace(OFFICIAL, encoder_norm="stored"))
    batch = learner("cnaps", "resnet18")
    assert adapt_macs(stored, 224, FRAMES, WAY, CLIP) == adapt_macs(batch, 224, FRAMES, WAY, CLIP)


@pytest.mark.parametrize(
    ("net", "macs"), [("resnet18_84", 1.04503e9), ("resnet18", 1.79787e9), ("efficientnet_b0", 0.398e9)]
)
def test_a_frame_costs_a_backbone_what_the_papers_figures_come_to(net: str, macs: float) -> None:
    digits = 4e-4 if net == "efficientnet_b0" else 5e-6
    assert network_macs(network(net), SIZES[net]) == pytest.approx(macs, rel=digits)


def test_a_frame_costs_the_set_encoder_what_the_papers_figures_come_to() -> None:
    theirs = SetEncoder(norm="batch", image_size=None)
    assert [round(network_macs(theirs, size) / 1e9, 5) for size in (84, 224)] == [0.09989, 0.71369]
    ours, shrinking = (
        SetEncoder(),
        84 * 84 * 3 * (7 + 1),
    )  # windows of 224 x 224 / 84 / 84 pixels, and their sums
    assert network_macs(ours, 224) == network_macs(theirs, 84) + shrinking
    assert network_macs(ours, 84) == network_macs(theirs, 84)


def test_layers_are_counted_by_the_papers_rules() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, groups=3),  # 10 x 10 to 8 x 8: 6 * 64 outputs, 9 products and a bias
        nn.BatchNorm2d(6),  # 6 * 64 elements
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),  # 6 * 4 outputs, 16 elements each
        nn.Flatten(),
        nn.Linear(24, 5),
    )
    model = Backbone(net, name="mine", dim=5, normalisation=SYMMETRIC)
    assert network_macs(model, 10) == 6 * 64 * 10 + 2 * 6 * 64 + 24 * 17 + 24 * 5


def test_heads_are_counted_by_the_papers_formulas() -> None:
    n, way, d = 7, 2, 5  # seven clips of two frames
    frame = network_macs(toy(), 32)

    def rest(model: nn.Module) -> float:
        """All but the networks and the mean over clips."""
        cost = LearnerMacs.of(model, 32)
        total = cost.macs(2 * n, way, 2)
        assert total is not None
        return total - 2 * n * (cost.backbone + cost.encoder) - cost.generator - 2 * n * d

    means = n * way + n * d
    assert rest(ProtoNets(toy())) == means + way * 3 * d
    assert rest(ProtoNets(toy(), metric="cosine")) == means + way * 2 * d
    assert rest(CNAPs(toy(film=True))) == means + way * (3 * d * d + d + 1 + 1)
    inverse = d**3 / 3 + d**2 - 4 * d / 3
    task = n * d + 1 + d * d * n + d * n
    own = [1 + 2 * d * k + d * d * k for k in (3, 4)]  # however the units are shared out
    expected = means + task + sum(own) + way * (1 + 2 * d * d + inverse)
    assert rest(SimpleCNAPs(toy(film=True))) == pytest.approx(expected, rel=1e-12)
    for model, count in ((FineTuner(toy()), 50), (MAML(toy()), 15)):
        counted = adapt_macs(model, 32, 2 * n, way, 2)
        assert counted == count * (2 * (2 * n * frame + n * way * d) + 2 * n * d)
    assert adapt_macs(FineTuner(toy(), descent=SupportDescent(0)), 32, 2 * n, way, 2) == 0


def test_the_generator_of_film_is_its_perceptrons() -> None:
    model = learner("simple_cnaps", "resnet18_84")
    assert LearnerMacs.of(model, 84).generator == 32 * 64 * 64 + 2 * 3840 * 64


def test_frames_that_are_no_clips_are_not_averaged() -> None:
    cost = LearnerMacs.of(ProtoNets(toy()), 8)
    assert cost.macs(6, 2) == 6 * cost.backbone + 6 * 2 + 6 * 5 + 2 * 3 * 5


def test_counting_leaves_a_learner_as_it_was() -> None:
    model = ProtoNets(toy()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    LearnerMacs.of(model, 8)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_head_without_a_formula_has_no_known_cost() -> None:
    class Mine(Head):
        def fit(self, features: Tensor, labels: Labels) -> State:
            return (labels.averaging(features) @ features,)

        def logits(self, state: State, queries: Tensor) -> Tensor:
            return queries @ state[0].T

    model = StagedLearner(toy(), Mine())
    assert adapt_macs(model, 8, 4, 2) is None
    assert adaptation_steps(model) == "1F"
    with pytest.raises(UsageError, match="the cost of a Linear is not known"):
        adapt_macs(nn.Linear(2, 2), 8, 4, 2)
