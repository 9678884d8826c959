"""A checkpoint is all that is needed to have a learner again, the same to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learners import checkpoint
from learners import runs as trained
from learners.heads.prototypes import PrototypeHead
from learners.learner import StagedLearner
from learners.methods.catalogue import TRAINABLE, LearnerInfo, describe_learner, make_learner
from learners.networks import save_weights
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.pixels import IMAGENET

SIZE = 32


def saved(path: Path, name: str = "protonets", **options: object) -> torch.nn.Module:
    net = make_learner(name, "conv4", **options)  # type: ignore[arg-type]
    tensors, values = checkpoint.flatten({"learner": net.state_dict()})
    what = describe_learner(net, name, SIZE).described()
    checkpoint.save(path, tensors, {"about": what, "state": values, "tasks": 7})
    return net


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_checkpoint_becomes_the_learner_that_wrote_it(name: str, tmp_path: Path) -> None:
    net = saved(tmp_path / "last.safetensors", name, seed=3)
    found = trained.load_run(tmp_path)
    assert (found.tasks, found.info.learner, found.info.image_size) == (7, name, SIZE)
    assert type(found.net) is type(net)
    for key, value in net.state_dict().items():
        assert torch.equal(found.net.state_dict()[key], value)


def test_the_best_weights_come_before_the_last(tmp_path: Path) -> None:
    saved(tmp_path / "last.safetensors")
    assert trained.load_run(tmp_path).file.name == "last.safetensors"
    saved(tmp_path / "best.safetensors")
    assert trained.load_run(tmp_path).file.name == "best.safetensors"
    assert trained.load_run(tmp_path / "last.safetensors").file.name == "last.safetensors"


def test_pixels_are_normalised_as_the_first_weights_wanted_it_without_their_file(tmp_path: Path) -> None:
    first = make_learner("protonets", "conv4", normalisation=IMAGENET)
    weights = tmp_path / "first.safetensors"
    save_weights(weights, first.backbone)
    net = saved(tmp_path / "last.safetensors", weights=weights)
    weights.unlink()
    found = trained.load_run(tmp_path)
    assert found.info.normalisation == IMAGENET
    images = torch.randint(0, 256, (4, 3, SIZE, SIZE), dtype=torch.uint8)
    assert isinstance(net, StagedLearner)
    assert isinstance(found.net, StagedLearner)
    assert torch.equal(found.net.backbone(images), net.backbone(images))


@pytest.mark.parametrize("name", ["protonets", "protonets_cosine"])
def test_a_checkpoint_keeps_the_temperature(name: str, tmp_path: Path) -> None:
    saved(tmp_path / "last.safetensors", name, temperature=0.5)
    found = trained.load_run(tmp_path).net
    assert isinstance(found, StagedLearner)
    assert isinstance(found.head, PrototypeHead)
    assert float(found.head.temperature) == 0.5


def test_a_temperature_is_for_prototypes_alone() -> None:
    with pytest.raises(UsageError, match=r"for protonets and protonets_cosine, not for cnaps"):
        make_learner("cnaps", "conv4", temperature=2.0)
    with pytest.raises(UsageError, match=r"positive"):
        make_learner("protonets", "conv4", temperature=0.0)


def test_a_place_without_a_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"has neither; python train\.py makes one"):
        trained.load_run(tmp_path)
    with pytest.raises(SourceMissing, match=r"is not there"):
        trained.load_run(tmp_path / "nowhere")


def test_a_checkpoint_that_does_not_say_what_it_is_of_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, {"a": torch.zeros(1)}, {"state": {}, "tasks": 1})
    with pytest.raises(IntegrityError, match=r"does not say which learner it is of"):
        trained.load_run(path)
    known = describe_learner(make_learner("protonets", "conv4"), "protonets", SIZE).described()
    with pytest.raises(IntegrityError, match=r"'oracle', which this version does not know"):
        LearnerInfo.from_described({**known, "learner": "oracle"}, path)
    with pytest.raises(IntegrityError, match=r"resizing.*: Expected `str`, got `int`"):
        LearnerInfo.from_described({**known, "resizing": ["squash", 3]}, path)


def test_an_unknown_learner_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"protonets"):
        make_learner("oracle", "conv4")
