"""Heads: the features of a support set become a classifier of features.

A head works in two steps. `fit` looks at the support set, once per task; `logits` then looks at queries,
batch by batch. What passes between them is a tuple of tensors, so that gradients can be gathered on it.
Logits are right up to a constant per query, which neither a loss nor a probability sees.
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


_ONE_AT_A_TIME: Final = threading.RLock()


class Head(nn.Module):
    """Per-class tensors from support features, and logits from those."""

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        """What queries need to know of the support set; features are N x d."""
        raise NotImplementedError

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        """M x way, from the queries' M x d features."""
        raise NotImplementedError


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """No autocast and no TF32: a head's sums and inverses need all of float32. Backward passes, too.

    TF32 is the process's, so one thread at a time may have it off.
    """
    matmul = torch.backends.cuda.matmul
    with _ONE_AT_A_TIME:
        before = matmul.fp32_precision
        try:
            matmul.fp32_precision = "ieee"
            with torch.autocast(device.type, enabled=False):
                yield
        finally:
            matmul.fp32_precision = before
