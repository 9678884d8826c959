from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from learners.networks import BACKBONE_NAMES, Backbone, backbone
from learners.networks.weights import save_weights
from pipeline.errors import UsageError
from pipeline.pixels import IMAGENET, SYMMETRIC, PixelNormalisation, normalise
from tests.learners.small import pictures, scramble, toy

OTHERS = ("timm/resnet18", "mobilenetv3_small_050", "convnext_atto")
TOTALS = {
    "conv4": 113_088,
    "resnet18": 11_176_512,
    "resnet18_84": 11_171_904,
    "efficientnet_b0": 4_007_548,
    "mobilenetv1_075": 2_585_560 - 769_000,  # without its classifier
}


@pytest.mark.parametrize("name", TOTALS)
def test_totals_of_parameters_are_the_papers(name: str) -> None:
    assert sum(parameter.numel() for parameter in backbone(name).parameters()) == TOTALS[name]


@pytest.mark.parametrize("name", [*BACKBONE_NAMES, *OTHERS])
def test_a_feature_does_not_depend_on_the_batch_even_while_training(name: str) -> None:
    torch.manual_seed(0)
    net = backbone(name).train()
    scramble(net)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    images = pictures(5, 40)
    with torch.no_grad():
        whole = net(images)
        parts = torch.cat([net(images[:1]), net(images[1:3]), net(images[3:])])
    assert whole.shape == (5, net.dim)
    assert (whole - parts).abs().max() < 1e-5 * whole.abs().max()
    assert (whole[0] - whole[1]).abs().max() > 1e-4 * whole.abs().max()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", ["conv4", "resnet18_84"])
def test_the_papers_norm_uses_the_batch_while_training_and_not_after(name: str) -> None:
    torch.manual_seed(0)
    net = backbone(name, norm="batch").train()
    images = pictures(5, 40)
    statistics = [value.clone() for key, value in net.state_dict().items() if "running" in key]
    assert (net(images)[:1] - net(images[:2])[:1]).abs().max() > 1e-3
    after = [value for key, value in net.state_dict().items() if "running" in key]
    assert statistics
    assert not any(torch.equal(a, b) for a, b in zip(statistics, after, strict=True))
    net.eval()
    assert torch.allclose(net(images)[:1], net(images[:1]), atol=1e-5)


def test_nothing_is_dropped_at_random_while_training() -> None:
    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Dropout(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.layers(x)
            return features

    net = Backbone(Dropping(), name="mine", dim=8, normalisation=IMAGENET).train()
    images = pictures(4)
    assert torch.equal(net(images), net(images))


def test_the_224_pixel_resnet_is_the_usual_one_but_for_the_border_of_its_stem() -> None:
    ours, theirs = backbone("resnet18"), backbone("timm/resnet18")
    scramble(theirs)
    ours.load_state_dict(theirs.state_dict())
    stem = theirs.net.get_submodule("conv1")
    assert isinstance(stem, nn.Conv2d)
    stem.padding = (1, 1)
    images = pictures(2, 64)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_sizes_of_maps_are_the_papers() -> None:
    sizes = []
    for name, size in (("resnet18", 224), ("resnet18_84", 84)):
        net = backbone(name).net
        watched = [net.get_submodule("conv1"), *(net.get_submodule(f"layer{i}") for i in range(1, 5))]
        for module in watched:
            module.register_forward_hook(lambda _m, _x, y: sizes.append(y.shape[-1]))
        with torch.no_grad():
            net(torch.zeros(1, 3, size, size))
    assert sizes == [110, 55, 28, 14, 7, 41, 41, 21, 11, 6]


def test_normalisation_belongs_to_the_network_and_can_be_given() -> None:
    torch.manual_seed(0)
    assert backbone("mobilenetv1_075").normalisation == SYMMETRIC
    assert backbone("efficientnet_b0").normalisation == IMAGENET
    mine = PixelNormalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    net = backbone("conv4", normalisation=mine)
    images = pictures(2, 28)
    assert torch.equal(net(images), net.net(normalise(images, mine)))
    assert torch.equal(deepcopy(net)(images), net(images))


def test_autocast_and_float64_work() -> None:
    net = backbone("conv4", film=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(pictures(2, 28)).isfinite().all()
    assert net.double()(pictures(2, 28)).dtype == torch.float64


def test_images_that_are_not_uint8_are_refused() -> None:
    with pytest.raises(UsageError, match=r"uint8, not torch.float32"):
        toy()(torch.full((1, 3, 8, 8), torch.nan))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, r"no backbone 'resnet19': needed one of conv4.*resnet"),
        ("zzz", {}, "which has nothing like it"),
        ("conv4", {"norm": "layer"}, "'example' or 'batch', not 'layer'"),
        ("conv4", {"norm": "batch", "film": True}, "FiLM needs norm='example'"),
        ("conv4", {"weights": "pretrained"}, "conv4 has no weights to fetch"),
    ],
)
def test_what_cannot_be_made_is_refused(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        backbone(name, **options)  # type: ignore[arg-type]


def test_images_too_small_for_conv4_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 16 x 16 pixels, not 8 x 8"):
        backbone("conv4")(pictures(1, 8))


def test_without_timm_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="pip install timm; without it there are conv4, resnet18"):
        backbone("efficientnet_b0")
    assert backbone("resnet18_84").dim == 512


FOUNDATION = (
    "vit_tiny_patch16_224.augreg_in21k",
    "eva02_tiny_patch14_224",
    "vit_small_patch14_dinov2.lvd142m",
)


@pytest.mark.parametrize("name", FOUNDATION)
def test_a_transformer_takes_images_of_any_whole_number_of_patches_and_keeps_the_shapes_of_its_file(
    name: str, tmp_path: Path
) -> None:
    net, patch = backbone(name), 14 if "14" in name else 16
    features = []
    with torch.no_grad():
        for size in (5 * patch, 6 * patch):
            images = pictures(2, size)
            features.append(net(images))
            assert torch.allclose(features[-1][:1], net(images[:1]), atol=1e-4)
    assert not torch.allclose(features[0], features[1])
    save_weights(tmp_path / "net.safetensors", net)
    again = backbone(name, weights=tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(again(pictures(2, 5 * patch)), features[0])
    native = timm.create_model(name, num_classes=0).state_dict()
    assert {key: value.shape for key, value in net.net.state_dict().items()} == {
        key: value.shape for key, value in native.items()
    }


def test_images_that_are_not_made_of_whole_patches_are_said_with_sizes_that_are() -> None:
    with pytest.raises(UsageError, match=r"16 x 16 .* 84 pixels .* take --image-size 80 or 96, .*--sizes 96"):
        backbone("vit_tiny_patch16_224")(pictures(1, 84))
    with pytest.raises(UsageError, match=r"take --image-size 16, "):
        backbone("vit_tiny_patch16_224")(pictures(1, 8))


def test_a_network_of_one_size_says_which_it_takes() -> None:
    with pytest.raises(UsageError, match=r"mixer_s16_224 does not take images of 96 pixels: .*224"):
        backbone("mixer_s16_224")(pictures(1, 96))
