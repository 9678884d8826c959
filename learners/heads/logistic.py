"""Multinomial logistic regression on features of length one, solved to the optimum by L-BFGS.

The objective is scikit-learn's:  C * (sum of cross-entropies) + |weights|^2 / 2; the bias is not penalised. It is
convex, so neither a learning rate nor a number of steps decides the answer. Features have length one, so that C
means the same for every network.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from learners.heads.base import Head, State
from learners.labels import Labels
from pipeline.errors import UsageError

DEFAULT_C: Final = 10.0
MOST_ITERATIONS: Final = 1000
SMALLEST_GRADIENT: Final = 1e-7  # of the objective's, per unit, at which it has settled
HISTORY: Final = 20  # of L-BFGS


class LogisticHead(Head):
    """A linear layer that fits a support set as logistic regression does; nothing passes back to the features."""

    def __init__(self, c: float = DEFAULT_C) -> None:
        """`c`: one over the strength of the penalty."""
        super().__init__()
        if not 0 < c < math.inf:
            raise UsageError(f"the C of logistic regression is a positive number, got {c}")
        self.c = c

    def fit(self, features: Tensor, labels: Labels) -> State:
        """The weights and the bias at the optimum."""
        rows = functional.normalize(features.detach().double())
        answers = torch.from_numpy(labels.values).to(features.device)
        weights = rows.new_zeros(labels.way, features.shape[1]).requires_grad_()
        bias = rows.new_zeros(labels.way).requires_grad_()
        solver = torch.optim.LBFGS(
            [weights, bias], max_iter=MOST_ITERATIONS, history_size=HISTORY, line_search_fn="strong_wolfe",
            tolerance_grad=SMALLEST_GRADIENT, tolerance_change=0,
        )  # fmt: skip

        def objective() -> float:
            solver.zero_grad()
            with torch.enable_grad():
                loss = functional.cross_entropy(
                    functional.linear(rows, weights, bias), answers, reduction="sum"
                )
                value = (loss + weights.square().sum() / (2 * self.c)) / len(rows)
                value.backward()  # type: ignore[no-untyped-call]
            return float(value.detach())

        solver.step(objective)  # type: ignore[no-untyped-call]
        return weights.detach().to(features.dtype), bias.detach().to(features.dtype)

    def logits(self, state: State, queries: Tensor) -> Tensor:
        weights, bias = state
        return functional.linear(functional.normalize(queries), weights, bias)
