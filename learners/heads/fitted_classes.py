"""What the Mahalanobis head keeps of a support set, also as older classifier files have it."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from learners.heads.base import State

GROUP_TENSORS: Final = (
    6  # for each size of class: its classes, the diagonal of B^-1, squares, F_c, shifts and weight
)
LARGEST_TABLE: Final = (
    1 << 26
)  # numbers in a table of units and classes made of such a state; real ones have a million


class FittedClasses(NamedTuple):
    """The state between `fit` and `logits`."""

    mean: Tensor
    """d: of all units."""
    means: Tensor
    """way x d: of each class, relative to `mean`."""
    axes: Tensor
    kernel: Tensor
    inverses: Tensor
    """sizes x n: the diagonal of B^-1 for each size that a class has."""
    nodes: Tensor
    """nodes x n: the same for a few sizes between the smallest and the largest."""
    mix: Tensor
    """sizes x nodes: each row of `inverses` as a sum of `nodes`, exact to rounding."""
    solved_means: Tensor
    """way x n: B^-1 r of the class's mean, with r relative to the mean of all units."""
    squares: Tensor
    """way: r^T B^-1 r of the class's mean."""
    solved_rows: Tensor
    """N x n: the rows of F_c B^-1, class after class."""
    shifts: Tensor
    """N: F_c B^-1 r of the class's mean."""
    weights: Tensor
    """way: w in the primal form, 1 in the dual."""
    of_size: Tensor
    """sizes x way: 1 where the class has the size."""
    of_class: Tensor
    """N x way: 1 where the row is the class's."""


def from_groups(state: State) -> FittedClasses:
    """The state from one of before November 2026, which had a group of tensors for each size of class."""
    mean, means, axes, kernel, *rest = state
    groups = [rest[begin : begin + GROUP_TENSORS] for begin in range(0, len(rest), GROUP_TENSORS)]
    classes, inverse, squares, own, shifts, weights = zip(*groups, strict=True)
    every = torch.arange(len(means), device=means.device)
    if sum(one.shape[0] * one.shape[1] for one in own) * len(every) > LARGEST_TABLE:
        raise ValueError("its classes have more units than a support set")
    chosen = [(one[:, None] == every).to(means.dtype) for one in classes]
    of_size, inverses = torch.stack([one.sum(0) for one in chosen]), torch.stack(inverse)
    return FittedClasses(
        mean=mean,
        means=means,
        axes=axes,
        kernel=kernel,
        inverses=inverses,
        nodes=inverses,
        mix=torch.eye(len(inverses), dtype=means.dtype, device=means.device),
        solved_means=means @ axes * (of_size.T @ inverses),
        squares=torch.cat(chosen).T @ torch.cat(squares),
        solved_rows=torch.cat([(rows * one).flatten(0, 1) for rows, one in zip(own, inverse, strict=True)]),
        shifts=torch.cat([one.flatten() for one in shifts]),
        weights=of_size.T @ torch.stack(weights),
        of_size=of_size,
        of_class=torch.cat(
            [one.repeat_interleave(rows.shape[1], 0) for one, rows in zip(chosen, own, strict=True)]
        ),
    )
