"""The weights of a frozen network in half precision, cast once and not in every pass."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Final

import torch
from torch import Tensor, nn

CAST_KINDS: Final = {"Conv1d", "Conv2d", "Conv2dSame", "Linear"}
"""Modules whose weights go straight into an operator that autocast casts for; subclasses may compute with them."""


@dataclass(frozen=True, slots=True)
class CastNetwork:
    """A network that shares everything but its cast weights with the one it was made of."""

    net: nn.Module
    weights: Sequence[Tensor]
    """The weights that were cast, as they were before."""
    states: Sequence[object]
    """What `_state` said of each when it was cast."""

    @property
    def is_current(self) -> bool:
        """Whether the weights have not changed since."""
        return [_state(weight) for weight in self.weights] == self.states


class FrozenCasts:
    """A network and, while it is frozen and autocast is on, its twin with weights that autocast need not cast.

    Outputs are the same bits: the operators get the same weights in the same type.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._twins: dict[torch.dtype, CastNetwork] = {}

    def network(self, device: torch.device) -> nn.Module:
        """The network to run on a device."""
        kind = device.type
        if torch.compiler.is_compiling() or kind == "meta" or not torch.is_autocast_enabled(kind):
            return self._net
        if any(parameter.requires_grad for parameter in self._net.parameters()):
            self._twins.clear()
            return self._net
        dtype = torch.get_autocast_dtype(kind)
        twin = self._twins.get(dtype)
        if twin is None or not twin.is_current:
            twin = self._twins[dtype] = _twin(self._net, dtype)
        return twin.net


def _twin(net: nn.Module, dtype: torch.dtype) -> CastNetwork:
    modules = [module for module in net.modules() if type(module).__name__ in CAST_KINDS]
    weights = [weight for module in modules for weight in module.parameters(recurse=False)]
    shared = {id(tensor): tensor for tensor in chain(net.parameters(), net.buffers())}
    for weight in weights:
        if weight.dtype == torch.float32:  # autocast leaves float64 alone
            shared[id(weight)] = nn.Parameter(weight.detach().to(dtype), requires_grad=False)
    return CastNetwork(deepcopy(net, shared), weights, [_state(weight) for weight in weights])


def _state(weight: Tensor) -> object:
    """What differs once a tensor was written to, converted or moved."""
    return weight._version, weight.dtype, weight.device  # noqa: SLF001 - of every tensor, and documented
