"""Gradients on the device against the CPU's in float64: by precision, again, and in another chunk."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Final, get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import TableRow
from benchmarks.gpu.model import Learner
from benchmarks.gpu.scale import MeasureScale
from benchmarks.step_parts import StepCase
from learners.learner import StagedLearner
from learners.networks.arithmetic import FIRST_LOSS_SCALE, Precision, network_precision
from learners.study.gradients import engine_gradient
from learners.task import Task

RIGHT_SUBJECTS: Final[tuple[tuple[Learner, str], ...]] = (
    ("simple_cnaps", "efficientnet_b0"),
    ("protonets", "resnet18"),
    ("simple_cnaps", "resnet18"),
)
QUICK_SUBJECTS: Final[tuple[tuple[Learner, str], ...]] = (("protonets", "conv4"), ("simple_cnaps", "conv4"))
PREDICTED_ERRORS: Final = {"tf32": "0.1", "float32": "below 0.001", "float16": "0.1", "bfloat16": "0.2-0.4"}
"""What emulation on a CPU gave, also with photographs; TF32 and float16 both keep ten bits."""


def measure(scale: MeasureScale) -> Iterator[TableRow]:
    """A row for each learner and precision; errors are relative to the gradient's length."""
    for learner, backbone in QUICK_SUBJECTS if scale.quick else RIGHT_SUBJECTS:
        case = StepCase(
            learner=learner, backbone=backbone, size=64, n=24, m=20, h=8, way=4, chunk=8, device=scale.device,
            varied=True,
        )  # fmt: skip
        net, task = case.make()
        exact = _gradient(replace(case, device="cpu"), copy.deepcopy(net).cpu().double(), _on_cpu(task))
        for precision in get_args(Precision):
            own = replace(case, precision=precision)
            first, again = _gradient(own, net, task), _gradient(own, net, task)
            other = _gradient(replace(own, chunk=24), net, task)
            yield {
                "learner": learner, "backbone": backbone, "precision": precision,
                "error": _distance(first, exact), "predicted": PREDICTED_ERRORS.get(precision, ""),
                "same_bits_twice": bool(torch.equal(first, again)), "chunk_of_24_for_8": _distance(other, first),
            }  # fmt: skip


def _gradient(case: StepCase, learner: StagedLearner, task: Task) -> Tensor:
    scale = FIRST_LOSS_SCALE if case.precision == "float16" else 1.0
    with network_precision(case.precision):
        gradient = engine_gradient(learner, task, case.settings(), np.random.default_rng(0), scale=scale)
    return gradient.detach().double().cpu() / scale


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).norm() / other.norm())


def _on_cpu(task: Task) -> Task:
    images, answers = task.joined_queries()
    return replace(
        task, images=task.support.cpu(), labels=task.labels.cpu(), queries=[(images.cpu(), answers.cpu())]
    )
