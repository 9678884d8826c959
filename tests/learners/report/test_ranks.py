"""Ranks are those of Meta-Dataset's own leaderboard."""

from __future__ import annotations

import pytest

from learners.report.ranks import MeanInterval, are_tied, average_ranks, tied_ranks

LEADERBOARD = {  # per cent, interval and rank of the leaderboard's ImageNet models, November 2021
    "VGG Flower": (
        (95.34, 0.37, 1), (87.34, 0.59, 3), (87.15, 0.69, 3), (86.96, 0.73, 3), (85.96, 0.77, 6),
        (85.51, 0.68, 6), (85.27, 0.77, 6), (83.1, 0.68, 8), (81.74, 0.83, 9), (80.13, 0.71, 10),
        (68.76, 0.83, 11),
    ),
    "Traffic signs": (
        (60.78, 1.29, 3), (51.8, 1.04, 5.5), (82.65, 0.76, 1), (66.79, 1.31, 2), (47.8, 1.14, 7.5),
        (47.12, 1.1, 9), (58.11, 1.05, 4), (33.67, 1.05, 11), (50.93, 1.51, 5.5), (48.83, 1.09, 7.5),
        (44.59, 1.19, 10),
    ),
    "QuickDraw": (
        (59.17, 1.16, 2), (50.33, 1.04, 4.5), (72.68, 0.82, 1), (42.6, 1.17, 8.5), (42.87, 1.09, 8.5),
        (48.96, 1.08, 6), (53.3, 1.06, 3), (43.3, 1.08, 8.5), (43.96, 1.29, 8.5), (51.52, 1.0, 4.5),
        (32.06, 1.08, 11),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dataset", LEADERBOARD)
def test_the_leaderboards_ranks_come_out(dataset: str) -> None:
    rows = LEADERBOARD[dataset]
    assert tied_ranks([MeanInterval(value, half) for value, half, _ in rows]) == [rank for *_, rank in rows]


def test_overlapping_intervals_are_not_enough_for_a_tie() -> None:
    assert are_tied(MeanInterval(48.83, 1.09), MeanInterval(47.8, 1.14))
    assert not are_tied(
        MeanInterval(48.83, 1.09), MeanInterval(47.12, 1.1)
    )  # they overlap from 47.74 to 48.22


def test_without_intervals_only_equals_tie() -> None:
    assert tied_ranks([MeanInterval(0.5, None), MeanInterval(0.7, None), MeanInterval(0.5, None)]) == [
        2.5,
        1.0,
        2.5,
    ]


def test_less_can_be_better() -> None:
    late = [MeanInterval(0.3, 0.01), MeanInterval(0.1, 0.01), MeanInterval(0.2, 0.01)]
    assert tied_ranks(late, lower_is_better=True) == [3.0, 1.0, 2.0]


def test_an_average_rank_needs_a_place_everywhere() -> None:
    columns = [{"a": 1.0, "b": 2.0, "c": 3.0}, {"b": 1.0, "a": 2.5}]
    assert average_ranks(columns) == {"a": 1.75, "b": 1.5}
    assert average_ranks([{"a": 1.0}, {}]) == {}
    assert average_ranks([]) == {}


def test_nobody_has_no_rank() -> None:
    assert tied_ranks([]) == []
