from __future__ import annotations

import pytest
import torch
from torch import nn

from learners.networks.set_encoder import SetEncoder
from pipeline.errors import UsageError
from tests.learners.small import pictures, scramble


@pytest.mark.parametrize("norm", ["example", "batch"])
def test_it_has_the_papers_number_of_parameters(norm: str) -> None:
    encoder = SetEncoder(norm=norm)  # type: ignore[arg-type]
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 150_144


def test_an_embedding_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    encoder = SetEncoder().double()
    images = pictures(6, 40)
    whole = encoder(images)
    assert whole.shape == (6, 64)
    parts = torch.cat([encoder(images[:1]), encoder(images[1:4]), encoder(images[4:])])
    assert (whole - parts).abs().max() < 1e-12


def test_the_papers_norm_depends_on_the_batch_in_training_and_in_use() -> None:
    torch.manual_seed(0)
    encoder = SetEncoder(norm="batch").double()
    images = pictures(6, 40)
    for mode in (True, False):
        encoder.train(mode)
        assert (encoder(images)[:3] - encoder(images[:3])).abs().max() > 1e-3


def test_stored_statistics_are_those_of_the_weights_in_training_and_in_use() -> None:
    torch.manual_seed(0)
    encoder = SetEncoder(norm="stored").double()
    scramble(encoder)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    images = pictures(6, 40)
    for mode in (True, False):
        encoder.train(mode)
        assert (encoder(images)[:3] - encoder(images[:3])).abs().max() < 1e-12
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_it_is_the_papers_layers_in_order() -> None:
    torch.manual_seed(0)
    encoder = SetEncoder(norm="batch", image_size=None).double()
    x = pictures(3, 45).double() / 127.5 - 1
    layers = [layer for layer in encoder.blocks.modules() if not list(layer.children())]
    assert [type(layer) for layer in layers] == 5 * [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d]
    for block in range(5):
        convolution, norm = layers[4 * block], layers[4 * block + 1]
        assert isinstance(convolution, nn.Conv2d)
        x = nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
        mean = x.mean((0, 2, 3), keepdim=True)
        x = (x - mean) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5).sqrt()
        assert isinstance(norm, nn.BatchNorm2d)
        x = nn.functional.max_pool2d(x.clamp(min=0), 2)
    assert torch.allclose(encoder(pictures(3, 45)), x.mean((2, 3)), atol=1e-6)


def test_large_images_are_brought_down_and_small_ones_left() -> None:
    torch.manual_seed(0)
    encoder = SetEncoder(image_size=40)
    even = pictures(2, 40).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.allclose(encoder(even), encoder(pictures(2, 40)), atol=1e-5)
    whole = SetEncoder(image_size=None)
    whole.load_state_dict(encoder.state_dict())
    assert torch.equal(whole(pictures(2, 33)), encoder(pictures(2, 33)))
    assert not torch.allclose(whole(even), encoder(even), atol=1e-3)


def test_images_too_small_to_halve_five_times_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 32 x 32 pixels, not 28 x 28"):
        SetEncoder()(pictures(1, 28))
    with pytest.raises(UsageError, match="32 pixels, not 28"):
        SetEncoder(image_size=28)
    with pytest.raises(UsageError, match="one of example, batch, stored; got 'layer'"):
        SetEncoder(norm="layer")  # type: ignore[arg-type]
