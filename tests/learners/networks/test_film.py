from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from learners.networks import Backbone, backbone
from learners.networks.film import FilmGenerator, film_places, identity_film
from pipeline.errors import UsageError
from pipeline.pixels import IMAGENET
from tests.learners.small import pictures, random_film, scramble, toy

EFFICIENTNET = [32, 32, 96, 144, 144, 240, 240, 480, 480, 480, 672, 672, 672, *[1152] * 4, 1280]
NAMES = ["conv4", "resnet18", "efficientnet_b0", "mobilenetv1_075", "convnext_atto", "linear"]


def made(name: str) -> Backbone:
    """A backbone whose norms are not the identity."""
    if name == "linear":
        layers = (nn.Flatten(), nn.Linear(4800, 8), nn.LayerNorm(8), nn.Linear(8, 4))
        net = nn.Sequential(nn.Sequential(*layers), nn.ReLU())
        own = Backbone(net, name=name, dim=4, normalisation=IMAGENET, film=True)
    else:
        own = backbone(name, film=True)
    scramble(own)
    for key, parameter in own.named_parameters():
        if key.endswith("gamma"):  # ConvNeXt's layers begin a millionth strong
            nn.init.constant_(parameter, 0.5)
    return own


def filmed_by_hooks(net: Backbone, images: Tensor, film: tuple[Tensor, ...]) -> Tensor:
    """The definition: gamma * x + beta on what a norm says, before its activation."""

    def after(
        gamma: Tensor, beta: Tensor, shape: tuple[int, ...]
    ) -> Callable[[nn.Module, object, Tensor], Tensor]:
        return lambda _module, _inputs, y: gamma.view(shape) * y + beta.view(shape)

    handles = []
    for norm, (gamma, beta) in zip(
        film_places(net.net).values(), zip(film[::2], film[1::2], strict=True), strict=True
    ):
        spot = norm.get_submodule("drop") if hasattr(norm, "drop") else norm
        shape = (-1,) if type(norm) is nn.LayerNorm else (-1, 1, 1)
        handles.append(spot.register_forward_hook(after(gamma, beta, shape)))
    try:
        features: Tensor = net(images)
        return features
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("name", NAMES)
def test_film_scales_and_shifts_what_a_norm_says_before_the_activation(name: str) -> None:
    net = made(name).double()
    images = pictures(2, 40)
    film = random_film(net.film_channels, torch.zeros(1, dtype=torch.float64))
    found, expected = net(images, film), filmed_by_hooks(net, images, film)
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 1e-12 * scale
    assert (found - net(images)).abs().max() > 1e-3 * scale
    coefficients = torch.randn(found.shape, dtype=torch.float64)
    gradients, wanted = (
        torch.autograd.grad((features * coefficients).sum(), film) for features in (found, expected)
    )
    for gradient, want in zip(gradients, wanted, strict=True):
        assert (gradient - want).abs().max() <= 1e-9 * want.abs().max()
        assert want.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_film_of_ones_and_zeros_leaves_every_bit(name: str) -> None:
    net = made(name)
    images = pictures(2, 40)
    with torch.no_grad():
        plain = net(images)
        assert torch.equal(net(images, identity_film(net.film_channels, plain)), plain)


def test_the_papers_places_are_found_by_rule() -> None:
    assert list(backbone("efficientnet_b0", film=True).film_channels) == EFFICIENTNET
    resnet = [count for count in (64, 128, 256, 512) for _ in range(4)]
    for name in ("resnet18", "resnet18_84", "timm/resnet18"):
        net = backbone(name, film=True)
        assert list(net.film_channels) == resnet
        assert not [place for place in film_places(net.net) if "downsample" in place or place == "bn1"]


def test_places_can_be_named_by_a_regular_expression() -> None:
    net = backbone("resnet18", film=r"layer4\..*\.bn2")
    assert net.film_channels == (512, 512)
    with pytest.raises(UsageError, match=r"FiLM needs norms that match 'layer9.*norms are bn1"):
        backbone("resnet18", film="layer9")


def test_a_broken_regular_expression_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'bn\(', which should match names of norms, is no pattern"):
        backbone("resnet18", film="bn(")


def test_threads_do_not_see_each_others_film() -> None:
    net = toy(film=True)
    images = pictures(3)
    films = [random_film(net.film_channels, torch.zeros(1).double(), seed) for seed in range(8)]
    alone = [net(images, film) for film in films]
    together: list[list[Tensor]] = [[] for _ in films]
    start = threading.Barrier(len(films))

    def work(number: int) -> None:
        start.wait()
        together[number] += [net(images, films[number]) for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(films))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, found in zip(alone, together, strict=True):
        assert len(found) == 20
        assert all(torch.equal(features, expected) for features in found)


def test_no_film_is_left_behind_not_even_by_a_failure() -> None:
    net = toy(film=True)
    images = pictures(3)
    plain = net(images)
    wrong = [torch.ones(7, dtype=torch.float64)] * 4
    with pytest.raises(RuntimeError):
        net(images, wrong)
    assert torch.equal(net(images), plain)


def test_a_wrong_number_of_tensors_is_refused() -> None:
    with pytest.raises(UsageError, match="toy has 2 places for FiLM, so it needs 4 tensors, not 2"):
        toy(film=True)(pictures(1), random_film((4,), torch.zeros(1)))


def test_a_compiled_backbone_takes_new_film_without_a_break() -> None:
    net = toy(film=True)
    images = pictures(3)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    for seed in range(3):
        film = random_film(net.film_channels, torch.zeros(1).double(), seed)
        assert torch.equal(compiled(images, film), net(images, film))


@pytest.mark.parametrize(("name", "total"), [("resnet18", 644_096), ("efficientnet_b0", 1_510_272)])
def test_generators_have_the_papers_numbers_of_parameters(name: str, total: int) -> None:
    generator = FilmGenerator(backbone(name, film=True).film_channels)
    assert sum(parameter.numel() for parameter in generator.parameters()) == total


def test_a_generator_is_one_perceptron_for_each_gamma_and_beta() -> None:
    torch.manual_seed(0)
    channels = (3, 5)
    generator = FilmGenerator(channels, task_dim=4).double()
    nn.init.normal_(generator.scale)
    nn.init.normal_(generator.shift)
    nn.init.normal_(generator.regularisers)
    z = torch.randn(4, dtype=torch.float64)
    ends = [0, 3, 6, 11, 16]
    for number, (found, (begin, end)) in enumerate(zip(generator(z), pairwise(ends), strict=True)):
        hidden = generator.first[number] @ z + generator.first_bias[number]
        hidden = (hidden - hidden.mean()) / (hidden.var(correction=0) + 1e-5).sqrt()
        hidden = (hidden * generator.scale[number] + generator.shift[number]).clamp(min=0)
        value = generator.last[begin:end] @ hidden + generator.last_bias[begin:end]
        expected = (1 - number % 2) + value * generator.regularisers[begin:end]
        assert torch.allclose(found, expected, rtol=1e-12, atol=0)


def test_a_new_generator_starts_close_to_the_identity_and_its_penalty_is_the_regularisers() -> None:
    torch.manual_seed(0)
    generator = FilmGenerator((64, 32))
    film = generator(torch.randn(64))
    for found, plain in zip(film, identity_film((64, 32), film[0]), strict=True):
        assert 0 < (found - plain).abs().max() < 0.01
    torch.autograd.backward(generator.penalty())
    assert generator.regularisers.grad is not None
    assert torch.equal(generator.regularisers.grad, 2 * generator.regularisers)
    assert generator.first.grad is None


def test_a_generator_without_places_is_refused() -> None:
    with pytest.raises(UsageError, match="film=True"):
        FilmGenerator(backbone("conv4").film_channels)


def test_every_norm_takes_film_by_one_word() -> None:
    net = backbone("vit_tiny_patch16_224").net
    assert len(film_places(net)) == 24  # two in each of twelve blocks
    assert [*film_places(net, "all")][-1] == "norm"
    assert len(film_places(net, "all")) == 25
