"""The model's prediction of what a part measures."""

from __future__ import annotations

from typing import Final

from benchmarks.common import TableRow
from benchmarks.gpu.costs import NETWORK_COSTS, Width
from benchmarks.gpu.model import EpisodeShape, StepSetting, memory_gb, predict
from benchmarks.step_parts import StepCase
from learners.networks.arithmetic import Precision

WIDTHS: Final[dict[Precision, Width]] = {"tf32": "tf32", "float16": "half", "bfloat16": "half"}


def predicted_columns(case: StepCase, *, compiled: bool = False) -> TableRow:
    """The prediction for an H200; nothing for a backbone or a precision that the model has no figures of."""
    if case.backbone not in NETWORK_COSTS or case.precision not in WIDTHS:
        return {}
    setting = StepSetting(
        learner=case.learner, backbone=case.backbone, size=case.size, width=WIDTHS[case.precision],
        chunk=case.chunk, chunk_without_graph=case.forward_chunk, h=case.h, compiled=compiled,
    )  # fmt: skip
    found = predict(EpisodeShape(support=case.n, query=case.m, class_sizes=1), setting)
    return {
        "predicted_ms": found.step_ms, "predicted_kernel_ms": found.kernel_ms, "predicted_busy": found.busy,
        "predicted_gb": memory_gb(setting),
    }  # fmt: skip
