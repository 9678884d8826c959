"""The gradient of one episode in memory, by chunk and precision: time, kernels, synchronisations, memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

import torch

from benchmarks.common import TableRow
from benchmarks.gpu.meters import count_synchronisations, median_ms, peak_memory, profile_kernels
from benchmarks.gpu.model import Learner
from benchmarks.gpu.predictions import predicted_columns
from benchmarks.gpu.runner import out_of_memory
from benchmarks.gpu.scale import MeasureScale, free_memory
from benchmarks.step_parts import StepCase
from learners.learner import StagedLearner
from learners.networks.arithmetic import Precision, autocast_dtype
from learners.task import Task

StepRow: TypeAlias = tuple[Learner, int | Literal["auto"], Precision]
"""Learner, chunk, precision."""
STEP_ROWS: Final[tuple[StepRow, ...]] = (  # in order of worth
    ("simple_cnaps", 40, "tf32"), ("simple_cnaps", "auto", "bfloat16"), ("simple_cnaps", 512, "tf32"),
    ("simple_cnaps", 128, "bfloat16"), ("protonets", 40, "tf32"), ("protonets", "auto", "bfloat16"),
    ("simple_cnaps", 40, "bfloat16"), ("simple_cnaps", 512, "float16"), ("simple_cnaps", 512, "float32"),
    ("simple_cnaps", 256, "bfloat16"), ("protonets", 128, "bfloat16"), ("protonets", 512, "tf32"),
)  # fmt: skip
QUICK_ROWS: Final[tuple[StepRow, ...]] = (
    ("simple_cnaps", 8, "tf32"), ("simple_cnaps", "auto", "bfloat16"), ("protonets", 16, "float32")
)  # fmt: skip
STEP_SECONDS: Final = 2.0  # of one row's repetitions


def measure(scale: MeasureScale) -> Iterator[TableRow]:
    """A row for each learner, chunk and precision."""
    made: dict[str, tuple[StagedLearner, Task]] = {}
    for learner, chunk, precision in QUICK_ROWS if scale.quick else STEP_ROWS:
        case = resident_case(scale, learner=learner, precision=precision)
        if learner not in made:
            made.clear()
            free_memory()
            made[learner] = case.make()
        yield measure_case(with_chunk(case, made[learner][0], chunk), *made[learner])


def resident_case(scale: MeasureScale, **choices: Any) -> StepCase:
    """The largest episode, in the device's memory."""
    return StepCase(**{
        "backbone": scale.backbone, "size": scale.pixels, "n": scale.images, "m": scale.images, "way": scale.way,
        "h": min(40, scale.images // 2), "device": scale.device, "varied": True, **choices,
    })  # fmt: skip


def with_chunk(case: StepCase, learner: StagedLearner, chunk: int | Literal["auto"]) -> StepCase:
    """The case with a chunk, or with those that train.py would choose."""
    if chunk != "auto":
        return replace(case, chunk=chunk)
    sizes = learner.chunk_sizes(case.size, precision=autocast_dtype(case.precision), training=True)
    return replace(case, chunk=sizes.graph, forward_chunk=sizes.forward)


def measure_case(
    case: StepCase, learner: StagedLearner, task: Task, *, seconds: float = STEP_SECONDS
) -> TableRow:
    """The figures of one case, beside the model's."""
    chunks = f"{case.chunk} / {case.forward_chunk or case.chunk}"
    row: TableRow = {"learner": case.learner, "chunks": chunks, "precision": case.precision}

    def once() -> None:
        case.backward(learner, task)
        learner.zero_grad()

    try:
        with peak_memory(row):
            spent = median_ms(once, least=2, most=5, seconds=seconds)
        row |= {"ms": spent, "images_per_second": 1000 * (case.n + case.m) / spent}
        row |= count_synchronisations(once) | profile_kernels(once)
    except torch.OutOfMemoryError as error:
        return row | out_of_memory(error)
    if "kernel_ms" in row:
        row["busy"] = row["kernel_ms"] / spent
    return row | predicted_columns(case)
