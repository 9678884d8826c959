"""The gradient of one episode with compiled networks: the time to compile them, and what it gains."""

from __future__ import annotations

import time
from collections.abc import Iterator

from benchmarks.common import TableRow, synchronize
from benchmarks.gpu.parts.step import measure_case, resident_case
from benchmarks.gpu.predictions import predicted_columns
from benchmarks.gpu.scale import MeasureScale
from learners.compiled import compile_networks


def measure(scale: MeasureScale) -> Iterator[TableRow]:
    """A row for a large chunk and a small one."""
    choices = {"learner": "protonets", "backbone": "conv4", "precision": "tf32"} if scale.quick else {}
    for chunk in (16,) if scale.quick else (512, 40):
        case = resident_case(scale, **{"precision": "bfloat16", "chunk": chunk, **choices})
        learner, task = case.make()
        compile_networks(learner)
        begin = time.monotonic()
        case.backward(learner, task)
        learner.zero_grad()
        synchronize()
        row = {"first_seconds": time.monotonic() - begin}
        yield measure_case(case, learner, task) | row | predicted_columns(case, compiled=True)
