"""Linear discriminant analysis with one covariance for all classes: FiT's naive Bayes head (Shysheya et al., 2022).

Class c is a Gaussian around its mean with the covariance that all classes share,

    S = spread * Cov + ridge * I,    Cov of the whole support set,

and a query's logit is its log density, up to a constant per query:  m_c^T S^-1 x - m_c^T S^-1 m_c / 2, which is
linear in x. So a fitted head is one linear layer. The factors `spread` and `ridge` are learned with the network,
and begin at one.

Two details differ from FiT's code. The ridge counts in units of the features' mean variance, since features of
different networks are ten to a hundred times as large (`scaled=False` is theirs). And with fewer units than
dimensions the system is solved in the span of the units, N x N instead of d x d, which is the same by Woodbury's
identity.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.base import Head, State
from learners.labels import Labels


class LinearDiscriminant(Head):
    """The log density of a query under each class's Gaussian; one covariance, of all support units."""

    def __init__(self, *, scaled: bool = True) -> None:
        """`scaled`: count the ridge in units of the mean variance of the features."""
        super().__init__()
        self.scaled = scaled
        self.log_spread = nn.Parameter(torch.zeros(()))
        self.log_ridge = nn.Parameter(torch.zeros(()))

    def fit(self, features: Tensor, labels: Labels) -> State:
        """The weights and the bias of the linear layer."""
        mean = features.mean(0)
        centred = features - mean
        means = labels.averaging(features) @ centred
        freedom = max(len(features) - 1, 1)
        share = self.log_spread.exp().to(features.dtype) / freedom
        ridge = self.log_ridge.exp().to(features.dtype)
        if self.scaled:
            variance = centred.square().sum() / (freedom * features.shape[1])
            ridge = ridge * variance.clamp_min(torch.finfo(features.dtype).tiny)
        weights = _solve_ridge(centred, means, share, ridge)
        return weights, -(weights * (means / 2 + mean)).sum(1)

    def logits(self, state: State, queries: Tensor) -> Tensor:
        weights, bias = state
        return functional.linear(queries, weights, bias)


def _solve_ridge(rows: Tensor, targets: Tensor, share: Tensor, ridge: Tensor) -> Tensor:
    """The targets times (share X^T X + ridge I)^-1, where X are the rows.

    Features that are no numbers give NaN: the loss shows it, and to ask would make a GPU wait.
    """
    units, dim = rows.shape
    if units < dim:
        gram = rows @ rows.T + ridge / share * _identity(units, rows)
        return (targets - (_solve(gram, rows @ targets.T)).T @ rows) / ridge
    return _solve(share * rows.T @ rows + ridge * _identity(dim, rows), targets.T).T


def _solve(matrix: Tensor, columns: Tensor) -> Tensor:
    root, trouble = torch.linalg.cholesky_ex(matrix)
    return torch.cholesky_solve(columns, root.masked_fill(trouble != 0, torch.nan))


def _identity(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, dtype=like.dtype, device=like.device)
