"""Activations in place, where that costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

OF_THEIR_INPUT: Final[dict[type[nn.Module], Callable[..., Tensor]]] = {
    nn.SiLU: functional.silu,
    nn.Hardswish: functional.hardswish,
    nn.Mish: functional.mish,
}
"""Activations whose gradient is computed from their input; that of a ReLU follows from its output."""


def keep_inputs(net: nn.Module) -> None:
    """Compute activations in place where there is no graph only: autograd would copy the input that is overwritten."""
    for module in net.modules():
        function = OF_THEIR_INPUT.get(type(module))
        if function is not None and getattr(module, "inplace", False):
            module.forward = partial(_activated, function)  # of the instance: others use the class too


def _activated(function: Callable[..., Tensor], x: Tensor) -> Tensor:
    return function(x, inplace=not x.requires_grad)
