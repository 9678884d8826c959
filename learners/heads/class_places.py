"""Where the units of each class are, and the sizes that classes have: all of it follows from the labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.labels import Labels


class ClassPlaces(NamedTuple):
    """Tensors that the head's products are made with."""

    order: Tensor
    """N: the units sorted by class."""
    slots: Tensor
    """N: the row of each sorted unit where every class is padded to `largest` rows."""
    largest: int
    counts: Tensor
    """way: the units of each class."""
    sizes: Tensor
    """The sizes that classes have, ascending."""
    nodes: Tensor
    """A few sizes between the smallest and the largest, at which a function of the size is known well enough."""
    mix: Tensor
    """sizes x nodes: the weights with which 1 / (value + w) at a size is made of those at the nodes."""
    of_size: Tensor
    """sizes x way: 1 where the class has the size."""
    of_class: Tensor
    """N x way: 1 where the sorted unit is the class's."""


def class_places(labels: Labels, like: Tensor) -> ClassPlaces:
    """The places of a support set's units, on the device and in the precision of `like`."""
    order = np.argsort(labels.values, kind="stable")
    owners, counts = labels.values[order], labels.counts
    within = np.arange(len(order)) - (np.cumsum(counts) - counts)[owners]
    largest, sizes = int(counts.max()), np.unique(counts)
    whole = torch.from_numpy(np.stack([order, owners * largest + within])).to(like.device)
    of_size, of_class = sizes[:, None] == counts, owners[:, None] == np.arange(labels.way)
    numbers = (counts, sizes, *_interpolation(sizes, like.dtype), of_size, of_class)
    counted, size, nodes, mix, sized, owned = (torch.from_numpy(values).to(like) for values in numbers)
    return ClassPlaces(whole[0], whole[1], largest, counted, size, nodes, mix, sized, owned)


def _interpolation(sizes: NDArray[np.int64], dtype: torch.dtype) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sizes (nodes), and for each given size a row of weights, with which any 1 / (value + w) is interpolated.

    w is in proportion to size + 1. At Chebyshev's points in log w the error falls by `rate` with each node, whatever
    the value is, since the function is smooth within pi of the real axis.
    """
    logs = np.log(sizes + 1)
    middle, half = (logs[0] + logs[-1]) / 2, (logs[-1] - logs[0]) / 2
    if len(sizes) > 1:
        rate = np.pi / half + np.hypot(np.pi / half, 1)
        count = int(np.ceil(-np.log(torch.finfo(dtype).eps) / np.log(rate))) + 1
        if count < len(sizes):
            angles = (np.arange(count) + 0.5) * np.pi / count
            points = middle + half * np.cos(angles)
            shares = (-1.0) ** np.arange(count) * np.sin(angles)
            away = logs[:, None] - points
            quotients = shares / np.where(away == 0, np.finfo(float).tiny, away)
            return np.exp(points) - 1, quotients / quotients.sum(1, keepdims=True)
    return sizes, np.eye(len(sizes))
