"""The Mahalanobis head of Simple CNAPs, without an inverse per class.

Class c's distance is (x - mean_c)^T P_c (x - mean_c) with

    P_c = (lam Cov_c + (1 - lam) Cov + I)^-1,    lam = k / (k + 1),    k the class's support units.

Let X be the centred features (N x d), w = (N - 1)(k + 1), B = S + w I with S = X^T X. Then (1 - lam) Cov + I
is B / w, and the class's own part has rank k - 1: a k x k correction by Woodbury's identity. With fewer units
than dimensions the same holds with the Gram matrix S = X X^T, N x N instead of d x d:

    primal (N >= d)   distance = w (r^T B^-1 r - |F_c B^-1 r|^2),                   r = x - mean_c
    dual   (N < d)    distance = |x - mean_c|^2 - r^T B^-1 r - |F_c B^-1 r|^2,      r = X (x - mean_c)

In the eigenvectors of S, computed once, every B is diagonal for any w. They serve as a fixed frame: gradients
flow through S as written in that frame, never through the eigenvectors. Nothing is truncated: logits and
gradients equal those of the inverses. |x - mean|^2 is the same for every class, so the dual form leaves it out:
a large number that would cancel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import torch
from torch.autograd.function import once_differentiable

from learners.heads.base import Head, State
from learners.labels import Labels, SameSize
from pipeline.errors import PipelineError, check_choice

OneShotCovariance: TypeAlias = Literal["zero", "official"]
LEAST_VARIANCE: Final = 1e-30  # the square root has no gradient at a variance of zero


class _EigenFrame(NamedTuple):
    """The support set in the eigenvectors of S; n is N in the dual form, d in the primal."""

    axes: torch.Tensor
    """d x n: maps a deviation from the mean of all units to r."""
    kernel: torch.Tensor
    """n x n: S. Its value is diagonal, its gradient is not."""
    values: torch.Tensor
    """n: the diagonal of S."""
    units: torch.Tensor
    """N x n: the units in this frame, from which the classes' corrections are made."""
    dual: bool


class _ClassGroup(NamedTuple):
    """Classes with the same number of support units."""

    classes: torch.Tensor
    inverse: torch.Tensor
    """n: the diagonal of B^-1."""
    squares: torch.Tensor
    """classes: r^T B^-1 r of the class's mean, with r relative to the mean of all units."""
    own: torch.Tensor
    """classes x rank x n: F_c."""
    shifts: torch.Tensor
    """classes x rank: F_c B^-1 r of the class's mean."""
    weight: torch.Tensor
    """w in the primal form, 1 in the dual."""


class MahalanobisHead(Head):
    """Minus the squared Mahalanobis distance to each class's mean.

    one_shot: the covariance of a class with one support unit. zero: none. official: what the official codes
    compute, the variance of that unit's feature across its dimensions, added to every entry of the matrix.
    """

    def __init__(self, one_shot: OneShotCovariance = "zero") -> None:
        super().__init__()
        check_choice(one_shot, ("zero", "official"), "one_shot")
        self.one_shot = one_shot

    def fit(self, features: torch.Tensor, labels: Labels) -> State:
        mean = features.mean(0)
        quirk = self.one_shot == "official" and 1 in labels.counts
        frame = _frame(features - mean, dual=len(features) < features.shape[1] and not quirk)
        means = labels.averaging(features) @ (features - mean)
        state: State = (mean, means, frame.axes, frame.kernel)
        for same in labels.by_count():
            variances = None
            if quirk and same.shots == 1:
                variances = _variances_across_dimensions(features[_index(same.rows[:, 0], features)])
            state += _group(frame, same, means, variances)
        return state

    def logits(self, state: State, queries: torch.Tensor) -> torch.Tensor:
        mean, means, axes, kernel, *rest = state
        groups = list(_groups(rest))
        moved = queries - mean
        seen, seen_means = moved @ axes, means @ axes
        inverses = torch.stack([group.inverse for group in groups])[:, None]
        solved = _InverseProduct.apply(kernel, inverses, seen)
        sign = 1 if axes.shape[1] < axes.shape[0] else -1
        parts = []
        for group, inner in zip(groups, solved, strict=True):
            near = (seen * inner).sum(1, keepdim=True)
            near = near - 2 * inner @ seen_means[group.classes].T + group.squares
            own = (inner @ group.own.flatten(0, 1).T).reshape(len(seen), *group.shifts.shape)
            own = (own - group.shifts).square().sum(2)
            parts.append(group.weight * (sign * near + own))
        order = torch.cat([group.classes for group in groups]).argsort()
        logits = torch.cat(parts, 1)[:, order]
        return logits + 2 * moved @ means.T - means.square().sum(1) if sign > 0 else logits


class _InverseProduct(torch.autograd.Function):
    """Rows times B^-1, for several w at once: a diagonal product forward, a full matrix's gradient backward."""

    @staticmethod
    def forward(ctx: Any, _kernel: torch.Tensor, inverse: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        products = rows * inverse
        ctx.save_for_backward(inverse, products)
        ctx.shape = rows.shape
        return products

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, torch.Tensor]:
        inverse, products = ctx.saved_tensors
        rows = gradient * inverse
        size = rows.shape[-1]
        kernel = -rows.reshape(-1, size).T @ products.reshape(-1, size)
        return kernel, None, rows.sum_to_size(ctx.shape)


def _frame(centred: torch.Tensor, *, dual: bool) -> _EigenFrame:
    with torch.no_grad():
        matrix = centred @ centred.T if dual else centred.T @ centred
        if not torch.isfinite(matrix).all():
            raise PipelineError(
                "the support features hold infinity or NaN, and a covariance needs numbers: training has "
                "diverged (lower the learning rate), or the weights that were loaded are broken"
            )
        values, vectors = torch.linalg.eigh(matrix)
    values = values.clamp_min(0)
    if dual:
        axes = centred.T @ vectors
        return _EigenFrame(axes, axes.T @ axes, values, vectors, dual)
    units = centred @ vectors
    return _EigenFrame(vectors, units.T @ units, values, units, dual)


def _group(
    frame: _EigenFrame, same: SameSize, means: torch.Tensor, variances: torch.Tensor | None
) -> _ClassGroup:
    """`variances`: one for each class, for the official codes' covariance of single units."""
    classes = _index(same.classes, means)
    weight = max(len(frame.units) - 1, 1) * (same.shots + 1)
    inverse = 1 / (frame.values + weight)
    if variances is None:
        columns, diagonal = _deviations(frame, same, weight)
    else:
        diagonal = 1 / weight
        columns = variances.clamp_min(LEAST_VARIANCE).sqrt()[:, None, None] * frame.axes.sum(0)
    solved = _InverseProduct.apply(frame.kernel, inverse, columns)
    small = (-1 if frame.dual else 1) * columns @ solved.mT
    one = torch.eye(columns.shape[1], dtype=columns.dtype, device=columns.device)
    root = torch.linalg.cholesky(small + diagonal * one)
    own = torch.linalg.solve_triangular(root, columns, upper=False)
    seen = means[classes] @ frame.axes
    near = _InverseProduct.apply(frame.kernel, inverse, seen)
    return _ClassGroup(
        classes=classes,
        inverse=inverse,
        squares=(seen * near).sum(1),
        own=own,
        shifts=(own @ near[:, :, None])[:, :, 0],
        weight=means.new_full((), 1 if frame.dual else weight),
    )


def _deviations(frame: _EigenFrame, same: SameSize, weight: int) -> tuple[torch.Tensor, float]:
    """Each unit minus its class's mean, classes x rank x n; and the diagonal added to their products."""
    if same.shots == 1:
        return frame.units.new_zeros(len(same.classes), 0, len(frame.values)), 1.0
    rows = frame.units[_index(same.rows, frame.units)]
    columns = rows - rows.mean(1, keepdim=True)
    own = same.shots / ((same.shots + 1) * (same.shots - 1))  # lam / (k - 1)
    if frame.dual:
        return columns, (1 + 1 / (weight * own)) / weight
    return own**0.5 * columns, 1 / weight


def _variances_across_dimensions(features: torch.Tensor) -> torch.Tensor:
    """lam = 1/2 times the variance of each row."""
    return features.var(1) / 2 if features.shape[1] > 1 else features.new_zeros(len(features))


def _groups(tensors: list[torch.Tensor]) -> Iterator[_ClassGroup]:
    size = len(_ClassGroup._fields)
    for begin in range(0, len(tensors), size):
        yield _ClassGroup(*tensors[begin : begin + size])


def _index(places: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(places).to(like.device)
