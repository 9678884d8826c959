"""A run that stays at the accuracy of guessing is told once, after 200 episodes; a run that learns is not."""

from __future__ import annotations

import numpy as np
import pytest

from learners.training.chance import PATIENCE_EPISODES, ChanceWatch


def watch(*, frozen: bool = True, random: bool = True, judged: bool = False) -> ChanceWatch:
    return ChanceWatch(frozen_random=frozen and random, judged=judged)


def verdicts(chance_watch: ChanceWatch, accuracies: list[float], *, step: int = 16) -> list[str]:
    return [chance_watch.verdict(step, accuracy, 0.2) for accuracy in accuracies]


def noise(count: int, mean: float, seed: int = 0) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 0.05, count))


def test_nothing_is_said_before_200_episodes() -> None:
    said = verdicts(watch(), noise(12, 0.2))
    assert PATIENCE_EPISODES > 12 * 16
    assert not any(said)


def test_a_run_at_chance_is_told_once_when_it_has_seen_200_episodes() -> None:
    said = verdicts(watch(), noise(100, 0.2))
    assert [number for number, text in enumerate(said) if text] == [12]
    assert said[12].startswith("warning: after 208 episodes the accuracy is that of guessing")


def test_a_run_that_learns_is_not_told() -> None:
    assert not any(verdicts(watch(), noise(100, 0.3)))


def test_a_run_below_chance_is_told() -> None:
    assert any(verdicts(watch(), noise(20, 0.15)))


def test_accuracies_that_never_move_are_told() -> None:
    assert any(verdicts(watch(), [0.2] * 20))


def test_chance_may_differ_from_step_to_step() -> None:
    learning, guessing = watch(), watch()
    ways = [5, 20] * 50
    rng = np.random.default_rng(1)
    above = [learning.verdict(16, 1 / way + 0.1 + rng.normal(0, 0.02), 1 / way) for way in ways]
    level = [guessing.verdict(16, 1 / way + rng.normal(0, 0.02), 1 / way) for way in ways]
    assert not any(above)
    assert any(level)


@pytest.mark.parametrize("seed", range(20))
def test_a_twentieth_above_chance_shows_in_200_noisy_steps(seed: int) -> None:
    one_by_one = watch()
    accuracies = list(0.2 + 0.05 + np.random.default_rng(seed).normal(0, 0.1, 200))
    assert not any(verdicts(one_by_one, accuracies, step=1))


def test_a_resumed_run_is_not_judged_again() -> None:
    assert not any(verdicts(watch(judged=True), noise(100, 0.2)))


def test_a_step_of_more_than_200_episodes_waits_for_a_second() -> None:
    assert [bool(text) for text in verdicts(watch(), [0.2, 0.2, 0.2], step=500)] == [False, True, False]


def test_the_likely_reason_is_the_weights_where_a_frozen_backbone_has_random_ones() -> None:
    assert "its weights are random: give --weights" in "".join(verdicts(watch(), noise(20, 0.2)))
    learned = "".join(verdicts(watch(frozen=False), noise(20, 0.2)))
    assert "--lr" in learned
    assert "give --weights" not in learned
    assert "--lr" in "".join(verdicts(watch(random=False), noise(20, 0.2)))
