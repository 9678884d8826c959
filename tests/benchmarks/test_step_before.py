"""A step against that of an older commit: two processes answer in turns, and another loss is an error."""

from __future__ import annotations

import math
from typing import Any

import pytest

from benchmarks.common import ROOT
from benchmarks.step_before import StepPair, StepServer, compare, step_pairs
from benchmarks.step_server import varied_labels


class ScriptedServer:
    """Answers with given CPU seconds, one after the other."""

    def __init__(self, seconds: list[float], loss: float = 1.0) -> None:
        self._seconds, self._loss = iter(seconds), loss

    def ask(self, _request: dict[str, Any]) -> dict[str, float]:
        return {"cpu": next(self._seconds), "loss": self._loss, "gradient": 1.0}


PAIR = StepPair(title="step", before={}, now={}, wanted=0.75)


def test_ratios_are_those_of_one_turn_and_the_first_turn_is_not_counted() -> None:
    before, now = ScriptedServer([99, 1, 2, 4]), ScriptedServer([1, 0.5, 1, 2])
    (row,) = compare([PAIR], before, now, 3)  # type: ignore[arg-type]
    assert (row["ratio"], row["95 %"]) == ("0.500", "0.500 to 0.500")
    assert (row["before, CPU s"], row["now, CPU s"]) == (2, 1)


def test_versions_that_compute_another_loss_are_not_compared() -> None:
    with pytest.raises(SystemExit, match=r"the loss was 1\.0 and is 1\.01"):
        compare([PAIR], ScriptedServer([1]), ScriptedServer([1], loss=1.01), 1)  # type: ignore[arg-type]


def test_the_task_has_22_class_sizes() -> None:
    labels = varied_labels(500, 50)
    counts = {int((labels == label).sum()) for label in range(50)}
    assert (len(labels), len(counts), min(counts)) == (500, 22, 1)


@pytest.mark.slow
def test_this_version_agrees_with_itself() -> None:
    words = ["32", "20", "5", "mobilenetv1_075"]
    with StepServer(ROOT, words) as before, StepServer(ROOT, words) as now:
        rows = compare(step_pairs(4), before, now, 2)
    assert [row[""] for row in rows] == [
        "step, all queries",
        "step, --query-h 4",
        "head, forward and backward",
    ]
    assert all(math.isfinite(float(row["ratio"])) for row in rows)
