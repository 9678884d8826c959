"""Where the units of each class are, and the sizes that classes have: all of it follows from the labels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.labels import Labels
from pipeline.loader.uploads import upload


class ClassPlaces(NamedTuple):
    """Tensors that the head's products are made with."""

    order: Tensor
    """N: the units sorted by class."""
    slots: Tensor
    """N: the row of each sorted unit where classes share blocks of as many rows as the largest class has units."""
    owners: Tensor
    """blocks x rows: the class of each row; -1 where it is nobody's."""
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
    sizes, firsts, rows = np.unique(counts), *_shared_blocks(counts)
    of_size, of_class = sizes[:, None] == counts, owners[:, None] == np.arange(labels.way)
    numbers = (counts, sizes, *_interpolation(sizes, like.dtype), of_size, of_class)
    made = (torch.from_numpy(values).to(like.dtype) for values in numbers)
    slots = firsts[owners] + within
    held = np.full(rows, -1)
    held[slots] = owners
    indices = (torch.from_numpy(values) for values in (order, slots, held.reshape(-1, counts.max())))
    return ClassPlaces(*upload(*indices, *made, device=like.device))


def _shared_blocks(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """The first row of each class, and the rows of all blocks: a class goes into the last block or begins another."""
    largest, firsts, end = int(counts.max()), np.zeros_like(counts), 0
    for label in np.argsort(-counts, kind="stable").tolist():
        if end % largest + counts[label] > largest:
            end += largest - end % largest
        firsts[label] = end
        end += int(counts[label])
    return firsts, -(-end // largest) * largest


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
