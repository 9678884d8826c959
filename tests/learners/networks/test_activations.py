from __future__ import annotations

import torch
from torch import Tensor, nn

from learners.networks.activations import keep_inputs


def net(kind: type[nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), kind(inplace=True), nn.Linear(7, 3))


class Seen:
    """Whether the activation returned the memory that it was given."""

    def __init__(self, module: nn.Module) -> None:
        self.in_place: list[bool] = []
        module.register_forward_hook(self._look)

    def _look(self, _module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.in_place.append(inputs[0].data_ptr() == output.data_ptr())


def test_activations_overwrite_their_input_only_where_no_gradient_needs_it() -> None:
    for kind, copied in ((nn.SiLU, True), (nn.Hardswish, True), (nn.Mish, True), (nn.ReLU, False)):
        own, plain = net(kind), net(kind)
        keep_inputs(own)
        seen, x = Seen(own[1]), torch.randn(4, 5)
        assert torch.equal(own(x), plain(x))
        with torch.no_grad():
            assert torch.equal(own(x), plain(x))
        assert seen.in_place == [not copied, True]
        for one in (own, plain):
            torch.autograd.backward(one(x).square().sum())
        gradients = ([p.grad for p in one.parameters()] for one in (own, plain))
        assert all(
            torch.equal(a, b) for a, b in zip(*gradients, strict=True) if a is not None and b is not None
        )
