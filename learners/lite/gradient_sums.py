"""Gradients of parameters, summed over passes."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class GradientSums:
    """Sums over passes, in which the gradients of all parameters are added at once.

    Left to itself, autograd adds to the `.grad` of each parameter: as many kernels in every pass as there are
    parameters.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._sums: dict[nn.Parameter, Tensor] = {}

    def fold(self) -> None:
        """Take what a pass has left in `.grad`."""
        left = [(parameter, parameter.grad) for parameter in self._parameters if parameter.grad is not None]
        known = [(self._sums[parameter], new) for parameter, new in left if parameter in self._sums]
        if known:
            sums, gradients = zip(*known, strict=True)
            torch._foreach_add_(sums, gradients)
        for parameter, new in left:
            self._sums.setdefault(parameter, new)
            parameter.grad = None

    def settle(self) -> None:
        """Put the sums into `.grad`."""
        self.fold()
        for parameter, total in self._sums.items():
            parameter.grad = total
        self._sums.clear()
