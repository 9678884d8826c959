"""Who is first: ranks in which learners that cannot be told apart share a place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

Key = TypeVar("Key")


class Figure(NamedTuple):
    """A mean, and half of its 95 % interval; None where there is no interval."""

    value: float
    interval: float | None


def tied(one: Figure, other: Figure) -> bool:
    """Whether the 95 % interval of the difference, the root of the sum of squares, reaches zero.

    It is stricter than "the intervals overlap": two intervals of ±1.0 tie up to a difference of 1.4, not 2.
    Figures without an interval tie when they are equal.
    """
    half = math.hypot(one.interval or 0.0, other.interval or 0.0)
    return abs(one.value - other.value) <= half


def ranks(figures: Sequence[Figure], *, lower_is_better: bool = False) -> list[float]:
    """The place of each, from 1, as Meta-Dataset's leaderboard gives it.

    The best shares its place with those that follow as long as they tie with it, and each of them gets the
    mean of the places that they take together; then the best of the others, and so on. A group is made
    around its best, so of two that tie, one can be in the group before.
    """
    order = sorted(range(len(figures)), key=lambda i: figures[i].value, reverse=not lower_is_better)
    places = [0.0] * len(figures)
    begin = 0
    while begin < len(order):
        best, end = figures[order[begin]], begin + 1
        while end < len(order) and tied(best, figures[order[end]]):
            end += 1
        for index in order[begin:end]:
            places[index] = (begin + 1 + end) / 2
        begin = end
    return places


def average_ranks(columns: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """The mean over the columns, for those that have a place in each of them."""
    if not columns:
        return {}
    everywhere = [key for key in columns[0] if all(key in column for column in columns)]
    return {key: math.fsum(c[key] for c in columns) / len(columns) for key in everywhere}
