"""A small backbone and pictures, for tests that compare with arithmetic in float64."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from learners import checkpoint
from learners.methods.catalogue import describe_learner, make_learner
from learners.networks import Backbone
from pipeline.pixels import SYMMETRIC

SIZE = 8


def toy(*, film: bool = False, seed: int = 0) -> Backbone:
    """Two convolutions with norms, every number of it random; images become 5 numbers."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh()),
        nn.Sequential(nn.Conv2d(4, 5, 3, 2), nn.BatchNorm2d(5), nn.Tanh()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    scramble(net)
    return Backbone(net, name="toy", dim=5, normalisation=SYMMETRIC, film=film).double()


def scramble(net: nn.Module) -> None:
    """Make norms differ from the identity, which hides mistakes."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)


def pictures(count: int, size: int = SIZE, seed: int = 0) -> Tensor:
    """uint8 images in the memory format that they travel in."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, size, size, 3), generator=generator, dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


def random_film(channels: tuple[int, ...], like: Tensor, seed: int = 0) -> tuple[Tensor, ...]:
    """Gammas around one and betas around zero that require gradients."""
    generator = torch.Generator().manual_seed(seed)
    film = []
    for count in channels:
        for middle in (1.0, 0.0):
            noise = torch.randn(count, generator=generator, dtype=torch.float64)
            film.append((middle + 0.2 * noise).to(like.dtype).requires_grad_())
    return tuple(film)


def make_run(folder: Path, size: int = 32) -> Path:
    """A run of ProtoNets that has not learned anything yet."""
    net = make_learner("protonets", "conv4")
    tensors, values = checkpoint.flatten({"learner": net.state_dict()})
    what = describe_learner(net, "protonets", size).described()
    folder.mkdir(parents=True)
    checkpoint.save(folder / "last.safetensors", tensors, {"about": what, "state": values, "tasks": 1})
    return folder
