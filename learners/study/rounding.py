"""Measures how far a task's exact gradient in each precision is from the one in float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Final, get_args

import numpy as np

from learners.learner import StagedLearner
from learners.lite.engine import Lite
from learners.networks.arithmetic import FIRST_LOSS_SCALE, Precision, autocast_dtype
from learners.study.gradients import GradientErrors, StudiedSampler, engine_gradient, lite_settings
from learners.study.tensor_cores import computing
from learners.task import Task

PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)


def rounding_errors(
    learner: StagedLearner, task: Task, precisions: Sequence[Precision]
) -> Iterator[tuple[Precision, GradientErrors]]:
    """The error of each precision; float16 with the loss scale that training begins with."""
    exact, rng = lite_settings("exact", 0, task), np.random.default_rng(0)  # the exact gradient draws nothing
    reference = engine_gradient(deepcopy(learner).double(), task, exact, rng)
    norm2 = float(reference.square().sum())
    for precision in precisions:
        settings = Lite(sampler="exact", chunk=exact.chunk, precision=autocast_dtype(precision), penalty=0.0)
        scale = FIRST_LOSS_SCALE if precision == "float16" else 1.0
        with computing(precision, reference.device):
            gradient = engine_gradient(learner, task, settings, rng, scale=scale)
        error = float((gradient.double() / scale - reference).square().sum()) / norm2
        yield precision, GradientErrors(error, error, 1)


def is_precision(sampler: StudiedSampler) -> bool:
    """Whether a row of a study is of a precision, and not of a sampler."""
    return sampler in PRECISIONS
