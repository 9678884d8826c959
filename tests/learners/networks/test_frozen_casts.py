from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from learners.networks import Backbone, backbone
from tests.learners.small import pictures, random_film, scramble


class CastCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts conversions of tensors."""

    casts = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.casts += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def frozen() -> Backbone:
    torch.manual_seed(0)
    made = backbone("efficientnet_b0", film=True)
    scramble(made)
    return made.requires_grad_(requires_grad=False)


def features(net: Backbone, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    with torch.no_grad(), torch.autocast("cpu", dtype=dtype, cache_enabled=False):
        found: torch.Tensor = net(pictures(2, 32), random_film(net.film_channels, torch.zeros(1)))
        return found


def learning(net: Backbone) -> torch.Tensor:
    """The same features of the network with weights that learn, which autocast itself casts."""
    net.requires_grad_(requires_grad=True)
    found = features(net)
    net.requires_grad_(requires_grad=False)
    return found


def test_a_frozen_network_gives_the_bits_of_autocast() -> None:
    net = frozen()
    wanted = learning(net)
    assert torch.equal(features(net), wanted)
    assert torch.equal(features(net), wanted)
    assert not torch.equal(features(net, torch.float16), wanted)
    assert set(net.state_dict()) == set(frozen().state_dict())


@pytest.mark.parametrize("change", ["written", "loaded"])
def test_weights_that_change_are_cast_again(change: str) -> None:
    net = frozen()
    before = features(net)
    if change == "written":
        with torch.no_grad():
            net.net.get_parameter("conv_stem.weight").mul_(2)
    else:
        net.load_state_dict({name: value * 1.5 for name, value in net.state_dict().items()})
    after = features(net)
    assert not torch.equal(after, before)
    assert torch.equal(after, learning(net))


def test_gradients_at_film_are_those_of_autocast() -> None:
    net, found = frozen(), []
    for wanted in (True, False):
        net.requires_grad_(wanted)
        film = random_film(net.film_channels, torch.zeros(1))
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            out = net(pictures(2, 32), film)
        found.append(torch.autograd.grad(out.float().square().sum(), film))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_weights_are_cast_in_the_first_pass_alone() -> None:
    net, casts = frozen(), []
    for _ in range(2):
        with CastCounter() as counter:  # type: ignore[no-untyped-call]
            features(net)
        casts.append(counter.casts)
    kernels = sum(p.dim() > 1 for p in net.net.parameters())
    assert casts[0] - casts[1] >= kernels
