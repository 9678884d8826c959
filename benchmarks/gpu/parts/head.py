"""The Mahalanobis head: its eigendecomposition by size and backend, and the whole of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from torch.nn import functional

from benchmarks.common import TableRow
from benchmarks.gpu.costs import EIGH_MS, HEAD_COSTS
from benchmarks.gpu.meters import count_synchronisations, median_ms, profile_kernels
from benchmarks.gpu.scale import MeasureScale
from benchmarks.step_server import varied_labels
from learners.heads.base import full_precision
from learners.heads.mahalanobis import MahalanobisHead
from learners.labels import Labels

FEATURES: Final = 1280  # of EfficientNet-B0
MATRIX_SIDES: Final = (500, 250, 100, FEATURES)
BACKEND_VARIABLE: Final = "TORCH_LINALG_EIGH_BACKEND"  # read from torch 2.11 or 2.12 on; no effect before
BACKENDS: Final = ("0", "1", "2", "3")
CHOLESKY_SIZES: Final = 22  # matrices in one batch: the class sizes of an episode
SHORT: Final = 0.4  # seconds of one figure of a matrix


def measure(scale: MeasureScale) -> Iterator[TableRow]:
    """The head first, then what could replace its eigendecomposition."""
    count = 60 if scale.quick else 500
    yield from _heads(scale, count)
    for side in (count,) if scale.quick else MATRIX_SIDES:
        yield _factorisations(scale, side)


def _heads(scale: MeasureScale, count: int) -> Iterator[TableRow]:
    """Forward and backward with classes of one size and of many."""
    way = min(50, count // 5)
    costs = HEAD_COSTS["batch"]
    predicted = max(costs.chunk_ms + costs.fit_ms, costs.kernel_ms) + EIGH_MS
    features, queries = (torch.randn(count, FEATURES, device=scale.device).requires_grad_() for _ in range(2))
    answers = torch.arange(count, device=scale.device) % way
    for name, values in (("many", varied_labels(count, way)), ("one", np.arange(count) % way)):
        labels, head = Labels(values, way), MahalanobisHead()

        def once(labels: Labels = labels, head: MahalanobisHead = head) -> None:
            with full_precision(features.device):
                logits = head.logits(head.fit(features, labels), queries)
                torch.autograd.backward(functional.cross_entropy(logits, answers))

        yield {
            "what": f"head, {name} class size{'s' if name == 'many' else ''} "
            f"({len(np.unique(labels.counts))}), forward and backward",
            "n": count, "ms": median_ms(once, seconds=scale.seconds),
            "predicted_ms": None if scale.quick else predicted,
            **count_synchronisations(once), **profile_kernels(once),
        }  # fmt: skip


def _factorisations(scale: MeasureScale, side: int) -> TableRow:
    """One symmetric matrix by each backend of `eigh`, on the CPU, and a batch of Cholesky factorisations."""
    rows = torch.randn(side, FEATURES + side, device=scale.device)
    matrix = rows @ rows.T
    row: TableRow = {"what": "eigh", "n": side, "ms": _eigh_ms(matrix, ""), "predicted_ms": None}
    if side == MATRIX_SIDES[0]:
        row["predicted_ms"] = EIGH_MS
    for backend in BACKENDS if scale.gpu else ():
        row[f"backend_{backend}_ms"] = _eigh_ms(matrix, backend)
    on_cpu = matrix.cpu()
    row["on_the_CPU_ms"] = median_ms(lambda: torch.linalg.eigh(on_cpu), seconds=SHORT)
    weights = torch.linspace(1e3, 1e4, CHOLESKY_SIZES, device=scale.device)
    batch = matrix + weights[:, None, None] * torch.eye(side, device=scale.device)
    row["22_Cholesky_ms"] = median_ms(lambda: torch.linalg.cholesky_ex(batch), seconds=SHORT)
    return row


def _eigh_ms(matrix: torch.Tensor, backend: str) -> float:
    before = os.environ.pop(BACKEND_VARIABLE, None)
    if backend:
        os.environ[BACKEND_VARIABLE] = backend
    try:
        return median_ms(lambda: torch.linalg.eigh(matrix), seconds=SHORT)
    finally:
        os.environ.pop(BACKEND_VARIABLE, None)
        if before is not None:
            os.environ[BACKEND_VARIABLE] = before
