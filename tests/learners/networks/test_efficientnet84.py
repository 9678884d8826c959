"""The EfficientNet-B0 with the borders of 224 pixels, against one written anew with LITE's parameter names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from learners.methods.catalogue import make_learner
from learners.networks import backbone
from learners.networks.backbones import EFFICIENTNET
from pipeline.errors import UsageError
from pipeline.pixels import SYMMETRIC, normalise
from tests.learners.convert.authors import randomise
from tests.learners.convert.official import EfficientNetB0
from tests.learners.small import pictures, random_film


@pytest.fixture(scope="module")
def official() -> EfficientNetB0:
    torch.manual_seed(0)
    net = EfficientNetB0(5)
    randomise(net)
    return net.double()


@pytest.fixture(scope="module")
def weights(official: EfficientNetB0, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file in which LITE's authors publish their weights for 84 pixels."""
    file = tmp_path_factory.mktemp("weights") / "efficientnet-b0_84.pt"
    torch.save({"state_dict": official.state_dict()}, file)
    return file


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("size", [84, 101, 224])
def test_features_are_those_of_the_authors_network_at_every_size(
    size: int, official: EfficientNetB0, weights: Path
) -> None:
    net = backbone("efficientnet_b0_84", weights=weights, film=True).double()
    images = pictures(2, size)
    film = random_film(net.film_channels, torch.zeros(1, dtype=torch.float64))
    with torch.no_grad():
        pixels = normalise(images, SYMMETRIC, torch.float64)
        assert relative(net(images), official(pixels)) < 1e-12
        assert relative(net(images, film), official(pixels, film)) < 1e-12


def test_the_usual_network_agrees_at_224_pixels_and_not_at_84(weights: Path) -> None:
    fixed = backbone("efficientnet_b0_84", weights=weights).double()
    usual = backbone("efficientnet_b0", weights=weights, normalisation=SYMMETRIC).double()
    assert fixed.net.state_dict().keys() == usual.net.state_dict().keys()
    with torch.no_grad():
        assert relative(fixed(pictures(2, 224)), usual(pictures(2, 224))) < 1e-12
        assert relative(fixed(pictures(2, 84)), usual(pictures(2, 84))) > 0.1


def test_it_has_the_film_of_the_usual_network_and_trains_as_it() -> None:
    fixed, usual = (make_learner("simple_cnaps", name) for name in ("efficientnet_b0_84", "efficientnet_b0"))
    assert fixed.backbone.film_channels == usual.backbone.film_channels
    assert [p.shape for p in fixed.parameters()] == [p.shape for p in usual.parameters()]
    for name, parameter in fixed.backbone.net.named_parameters():
        assert torch.equal(parameter, usual.backbone.net.get_parameter(name))


def test_its_weights_come_from_a_file_alone() -> None:
    with pytest.raises(UsageError, match=r"models/efficientnet-b0_84.pt in https.*name it with --weights"):
        backbone("efficientnet_b0_84", weights="pretrained")


def test_the_papers_network_is_the_one_trained_with_autoaugment() -> None:
    assert EFFICIENTNET.endswith(".aa_in1k")
