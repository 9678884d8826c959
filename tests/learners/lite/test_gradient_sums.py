from __future__ import annotations

import torch
from torch import nn

from learners.lite.gradient_sums import GradientSums


def test_sums_over_passes_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(2))]
    frozen = nn.Parameter(torch.randn(2), requires_grad=False)
    parameters[0].grad = torch.randn(3, 2)  # of a task before
    own = [nn.Parameter(p.detach().clone()) for p in parameters]
    own[0].grad = parameters[0].grad.clone()
    sums = GradientSums([*own, frozen])
    for x in torch.randn(3, 4, 3):
        for first, second, _ in (parameters, own):  # the third has no part in the loss
            torch.autograd.backward((x @ first + second).square().sum())
        sums.fold()
        assert all(p.grad is None for p in own)
    sums.settle()
    for mine, theirs in zip(own[:2], parameters[:2], strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.equal(mine.grad, theirs.grad)
    assert own[2].grad is None
    sums.settle()  # nothing is left
    assert own[1].grad is not None
