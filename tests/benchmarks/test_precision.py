"""The comparison of two learners on the same tasks."""

from __future__ import annotations

import pytest

from benchmarks.precision import compared


def test_differences_are_taken_task_by_task() -> None:
    base = [0.2, 0.9, 0.5, 0.7]
    found = compared([accuracy + 0.01 for accuracy in base], base)
    assert found["accuracy, %"].startswith("58.50 ± ")
    assert found["against float32"] == "+1.000 ± 0.000"  # their spread over tasks is not in it
    assert found["tasks that differ"] == "4 of 4"


def test_a_learner_against_itself_differs_nowhere() -> None:
    assert compared([0.25, 0.5], [0.25, 0.5])["tasks that differ"] == "0 of 2"


def test_other_tasks_are_no_pairs() -> None:
    with pytest.raises(ValueError, match="longer"):
        compared([0.1], [0.1, 0.2])
