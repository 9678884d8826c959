"""Calibration: whether the probability of an answer says how often such answers are right.

Accuracy is blind to it: on the same features, class means compared by distance can be right as often as logistic
regression, and be infinitely sure where they are wrong. A temperature that is fitted to other tasks mends most.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from learners.evaluate.records import CalibrationScore, TaskAnswers, TaskCalibration
from learners.evaluate.scores import mean_interval

CONFIDENCE_BINS: Final = 15  # of equal width, as in Guo et al. (2017) and in the papers since


def task_calibration(logits: Tensor, labels: Tensor, temperature: float = 1.0) -> TaskCalibration | None:
    """The calibration of some queries' logits, divided by the temperature; None without a query."""
    if not len(labels):
        return None
    scaled = logits.double() / temperature
    return TaskCalibration(
        temperature=temperature,
        nll=float(functional.cross_entropy(scaled, labels)),
        ece=calibration_error(scaled.softmax(1), labels),
    )


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """The mean distance of confidence from accuracy, over bins of confidence, each weighed by its queries."""
    confidence, answers = probabilities.max(1)
    right = (answers == labels).to(confidence.dtype)
    bins = (confidence * CONFIDENCE_BINS).ceil().long().clamp(
        1, CONFIDENCE_BINS
    ) - 1  # the upper edge belongs to it
    surplus = torch.zeros(CONFIDENCE_BINS, dtype=confidence.dtype).index_add_(0, bins, confidence - right)
    return float(surplus.abs().sum() / len(labels))


def calibration_scores(tasks: Sequence[TaskAnswers]) -> tuple[CalibrationScore, ...]:
    """The scores of each dataset (and of each of ORBIT's modes): as answered, and at the fitted temperature.

    A dataset with a task that was answered before there was calibration has none.
    """
    groups: dict[tuple[str, str], list[TaskAnswers]] = {}
    for task in tasks:
        groups.setdefault((task.dataset, task.mode), []).append(task)
    scores = []
    for (dataset, mode), own in groups.items():
        plain, fitted = [task.calibration for task in own], [task.fitted_calibration for task in own]
        for found in (plain, fitted):
            known = [value for value in found if value is not None]
            if len(known) == len(own):
                scores.append(_mean_calibration(dataset, mode, known, fitted=found is fitted))
    return tuple(scores)


def _mean_calibration(
    dataset: str, mode: str, values: Sequence[TaskCalibration], *, fitted: bool
) -> CalibrationScore:
    nll, nll_interval = mean_interval([value.nll for value in values])
    ece, ece_interval = mean_interval([value.ece for value in values])
    several = len(values) > 1
    return CalibrationScore(
        dataset=dataset, group=mode, temperature=values[0].temperature, fitted=fitted, nll=nll, ece=ece, count=len(values),
        nll_interval=nll_interval if several else None, ece_interval=ece_interval if several else None,
    )  # fmt: skip
