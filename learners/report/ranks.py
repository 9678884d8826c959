"""Ranks of learners; learners whose figures do not differ significantly share a rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

Key = TypeVar("Key")


class MeanInterval(NamedTuple):
    """A mean and half of its 95 % interval, or None without an interval."""

    value: float
    interval: float | None


def are_tied(one: MeanInterval, other: MeanInterval) -> bool:
    """Whether the 95 % interval of the difference, the root of the sum of squares, reaches zero.

    Fewer figures tie than those whose intervals overlap: with two intervals of ±1.0 the limit is a difference
    of 1.4, not of 2. Figures without an interval tie when they are equal.
    """
    half = math.hypot(one.interval or 0.0, other.interval or 0.0)
    return abs(one.value - other.value) <= half


def tied_ranks(figures: Sequence[MeanInterval], *, lower_is_better: bool = False) -> list[float]:
    """The rank of each figure, from 1, as on Meta-Dataset's leaderboard.

    The best figure and those after it that tie with it form a group, and each of them gets the mean of the
    places that the group takes; the next group begins with the best of the others. As only the best of a
    group is compared, two figures that tie can be in different groups.
    """
    order = sorted(range(len(figures)), key=lambda i: figures[i].value, reverse=not lower_is_better)
    places = [0.0] * len(figures)
    begin = 0
    while begin < len(order):
        best, end = figures[order[begin]], begin + 1
        while end < len(order) and are_tied(best, figures[order[end]]):
            end += 1
        for index in order[begin:end]:
            places[index] = (begin + 1 + end) / 2
        begin = end
    return places


def average_ranks(columns: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """The mean rank over the columns, for the keys that are in each of them."""
    if not columns:
        return {}
    everywhere = [key for key in columns[0] if all(key in column for column in columns)]
    return {key: math.fsum(c[key] for c in columns) / len(columns) for key in everywhere}
