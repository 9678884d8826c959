"""Heads: the features of a support set become a classifier of features.

A head works in two steps: `fit` reads the support features, once per task; `logits` then reads query features,
batch by batch. The state between them is a tuple of tensors, on which gradients can accumulate. Logits are exact
up to a constant per query, which changes neither a loss nor a probability.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import torch
from torch import nn

from learners.labels import Labels

State: TypeAlias = tuple[torch.Tensor, ...]
_TF32_LOCK: Final = threading.RLock()


class Head(nn.Module):
    """A classifier of features, fitted to a support set in `fit` and applied in `logits`."""

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        """Compute what `logits` needs from the N x d support features."""
        raise NotImplementedError

    def upgraded(self, state: State) -> State:
        """The state of this version for one of a file, which an older version may have written."""
        return state

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        """Compute M x way logits of the M x d query features."""
        raise NotImplementedError


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Turn off autocast and TF32: a head's sums and inverses need all of float32, backward as well.

    TF32 is a setting of the whole process, so one thread at a time may turn it off.
    """
    matmul = torch.backends.cuda.matmul
    with _TF32_LOCK:
        before = matmul.fp32_precision
        try:
            matmul.fp32_precision = "ieee"
            kind = "cpu" if device.type == "meta" else device.type  # autocast does not know meta
            with torch.autocast(kind, enabled=False):
                yield
        finally:
            matmul.fp32_precision = before
