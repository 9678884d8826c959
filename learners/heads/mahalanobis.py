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

Classes of all sizes are computed together: `fit` pads them to the largest class where a batched factorisation
wants it, and keeps F_c B^-1 packed, one row for each support unit, so that `logits` is a few matrix products
however many class sizes a task has.
"""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from learners.heads.base import Head, State
from learners.labels import Labels
from pipeline.errors import PipelineError, check_choice

OneShotCovariance: TypeAlias = Literal["zero", "official"]
GROUP_TENSORS: Final = 6  # for each size of class, in states of before November 2026
LARGEST_TABLE: Final = (
    1 << 26
)  # numbers in a table of units and classes made of such a state; real ones have a million
LEAST_VARIANCE: Final = 1e-30  # the square root has no gradient at a variance of zero


class _EigenFrame(NamedTuple):
    """The support set in the eigenvectors of S; n is N in the dual form, d in the primal."""

    axes: Tensor
    """d x n: maps a deviation from the mean of all units to r."""
    kernel: Tensor
    """n x n: collects the gradient at S, which is no diagonal matrix as S itself is here; its value is not used."""
    values: Tensor
    """n: the diagonal of S."""
    units: Tensor
    """N x n: the units in this frame, from which the classes' corrections are made."""
    dual: bool


class _FittedClasses(NamedTuple):
    """The state between `fit` and `logits`."""

    mean: Tensor
    """d: of all units."""
    means: Tensor
    """way x d: of each class, relative to `mean`."""
    axes: Tensor
    kernel: Tensor
    inverses: Tensor
    """sizes x n: the diagonal of B^-1 for each size that a class has."""
    nodes: Tensor
    """nodes x n: the same for a few sizes between the smallest and the largest."""
    mix: Tensor
    """sizes x nodes: each row of `inverses` as a sum of `nodes`, exact to rounding."""
    solved_means: Tensor
    """way x n: B^-1 r of the class's mean, with r relative to the mean of all units."""
    squares: Tensor
    """way: r^T B^-1 r of the class's mean."""
    solved_rows: Tensor
    """N x n: the rows of F_c B^-1, class after class."""
    shifts: Tensor
    """N: F_c B^-1 r of the class's mean."""
    weights: Tensor
    """way: w in the primal form, 1 in the dual."""
    of_size: Tensor
    """sizes x way: 1 where the class has the size."""
    of_class: Tensor
    """N x way: 1 where the row is the class's."""


class _ClassPlaces(NamedTuple):
    """Where each class's units are; all of it follows from the labels."""

    order: Tensor
    """N: the units sorted by class."""
    slots: Tensor
    """N: the row of each sorted unit where every class is padded to `largest` rows."""
    largest: int
    counts: Tensor
    """way: the units of each class."""
    sizes: Tensor
    """The sizes that classes have, ascending."""
    nodes: Tensor
    mix: Tensor
    of_size: Tensor
    of_class: Tensor


class MahalanobisHead(Head):
    """Minus the squared Mahalanobis distance to each class's mean.

    one_shot: the covariance of a class with one support unit. zero: none. official: what the official codes
    compute, the variance of that unit's feature across its dimensions, added to every entry of the matrix.
    """

    def __init__(self, one_shot: OneShotCovariance = "zero") -> None:
        super().__init__()
        check_choice(one_shot, ("zero", "official"), "one_shot")
        self.one_shot = one_shot

    def fit(self, features: Tensor, labels: Labels) -> State:
        mean = features.mean(0)
        quirk = self.one_shot == "official" and 1 in labels.counts
        frame = _frame(features - mean, dual=len(features) < features.shape[1] and not quirk)
        means = labels.averaging(features) @ (features - mean)
        places = _places(labels, features)
        weight = max(len(features) - 1, 1)
        weights = weight * (places.counts + 1)
        inverses, nodes = (
            1 / (frame.values + weight * (sizes + 1)[:, None]) for sizes in (places.sizes, places.nodes)
        )
        columns, diagonal = _deviations(frame, places, weights)
        if quirk:
            single = (places.of_class @ places.counts == 1).to(features.dtype)
            spread = _deviations_across_dimensions(features[places.order]) * single
            columns = columns + spread[:, None] * frame.axes.sum(0)
        of_class_inverse = places.of_size.T @ inverses
        solved_rows = _solved_rows(frame, places, columns, diagonal, of_class_inverse)
        seen = means @ frame.axes
        solved_means = _InverseProduct.apply(frame.kernel, of_class_inverse, seen)
        return _FittedClasses(
            mean=mean,
            means=means,
            axes=frame.axes,
            kernel=frame.kernel,
            inverses=inverses,
            nodes=nodes,
            mix=places.mix,
            solved_means=solved_means,
            squares=(seen * solved_means).sum(1),
            solved_rows=solved_rows,
            shifts=(solved_rows * (places.of_class @ seen)).sum(1),
            weights=torch.ones_like(weights) if frame.dual else weights,
            of_size=places.of_size,
            of_class=places.of_class,
        )

    def upgraded(self, state: State) -> State:
        if len(state) == len(_FittedClasses._fields):
            return state
        mean, means, axes, kernel, *rest = state
        groups = [rest[begin : begin + GROUP_TENSORS] for begin in range(0, len(rest), GROUP_TENSORS)]
        classes, inverse, squares, own, shifts, weights = zip(*groups, strict=True)
        every = torch.arange(len(means), device=means.device)
        if sum(one.shape[0] * one.shape[1] for one in own) * len(every) > LARGEST_TABLE:
            raise ValueError("its classes have more units than a support set")
        chosen = [(one[:, None] == every).to(means.dtype) for one in classes]
        of_size, inverses = torch.stack([one.sum(0) for one in chosen]), torch.stack(inverse)
        return _FittedClasses(
            mean=mean,
            means=means,
            axes=axes,
            kernel=kernel,
            inverses=inverses,
            nodes=inverses,
            mix=torch.eye(len(inverses), dtype=means.dtype, device=means.device),
            solved_means=means @ axes * (of_size.T @ inverses),
            squares=torch.cat(chosen).T @ torch.cat(squares),
            solved_rows=torch.cat(
                [(rows * one).flatten(0, 1) for rows, one in zip(own, inverse, strict=True)]
            ),
            shifts=torch.cat([one.flatten() for one in shifts]),
            weights=of_size.T @ torch.stack(weights),
            of_size=of_size,
            of_class=torch.cat(
                [one.repeat_interleave(rows.shape[1], 0) for one, rows in zip(chosen, own, strict=True)]
            ),
        )

    def logits(self, state: State, queries: Tensor) -> Tensor:
        fitted = _FittedClasses(*state)
        moved = queries - fitted.mean
        seen = moved @ fitted.axes
        near = (
            _InverseSquares.apply(fitted.kernel, fitted.inverses, fitted.nodes, fitted.mix, seen)
            @ fitted.of_size
        )
        near = near - 2 * seen @ fitted.solved_means.T + fitted.squares
        own = (seen @ fitted.solved_rows.T - fitted.shifts).square() @ fitted.of_class
        dual = fitted.axes.shape[1] < fitted.axes.shape[0]
        logits: Tensor = fitted.weights * (own + near if dual else own - near)
        return logits + 2 * moved @ fitted.means.T - fitted.means.square().sum(1) if dual else logits


class _GramMatrix(torch.autograd.Function):
    """X^T X without its value: zeros forward, the product's gradient backward."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        return rows.new_zeros(rows.shape[1], rows.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (rows,) = ctx.saved_tensors
        product: Tensor = rows @ (gradient + gradient.T)
        return product


class _InverseProduct(torch.autograd.Function):
    """Rows times B^-1, each with a w of its own: a diagonal product forward, a full matrix's gradient backward."""

    @staticmethod
    def forward(ctx: Any, _kernel: Tensor, inverse: Tensor, rows: Tensor) -> Tensor:
        products = rows * inverse
        ctx.save_for_backward(inverse, products)
        return products

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor]:
        inverse, products = ctx.saved_tensors
        rows = gradient * inverse
        return -rows.T @ products, None, rows


class _InverseSquares(torch.autograd.Function):
    """r^T B^-1 r of each row for each of several w, rows x sizes; the gradient as above.

    S's gradient is a sum over rows and sizes of outer products. As a function of w they are sums over the few
    `nodes`, which saves more than half of a head's backward pass where classes have twenty sizes.
    """

    @staticmethod
    def forward(
        ctx: Any, _kernel: Tensor, inverses: Tensor, nodes: Tensor, mix: Tensor, rows: Tensor
    ) -> Tensor:
        ctx.save_for_backward(inverses, nodes, mix, rows)
        return rows.square() @ inverses.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, Tensor]:
        inverses, nodes, mix, rows = ctx.saved_tensors
        shares = (gradient[:, None] * mix.T) @ mix  # rows x nodes x nodes
        products = (nodes * rows[:, None]).flatten(0, 1)
        kernel = -((shares @ nodes) * rows[:, None]).flatten(0, 1).T @ products
        return kernel, None, None, None, 2 * (gradient @ inverses) * rows


def _frame(centred: Tensor, *, dual: bool) -> _EigenFrame:
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
        return _EigenFrame(axes, _gradient_collector(axes), values, vectors, dual)
    units = centred @ vectors
    return _EigenFrame(vectors, _gradient_collector(units), values, units, dual)


def _gradient_collector(rows: Tensor) -> Tensor:
    """The kernel of rows; nothing where they need no gradient."""
    kernel: Tensor = _GramMatrix.apply(rows) if rows.requires_grad else rows.new_zeros(0, 0)
    return kernel


def _places(labels: Labels, like: Tensor) -> _ClassPlaces:
    order = np.argsort(labels.values, kind="stable")
    owners, counts = labels.values[order], labels.counts
    within = np.arange(len(order)) - (np.cumsum(counts) - counts)[owners]
    largest, sizes = int(counts.max()), np.unique(counts)
    whole = torch.from_numpy(np.stack([order, owners * largest + within])).to(like.device)
    of_size, of_class = sizes[:, None] == counts, owners[:, None] == np.arange(labels.way)
    numbers = (counts, sizes, *_interpolation(sizes, like.dtype), of_size, of_class)
    counted, size, nodes, mix, sized, owned = (torch.from_numpy(values).to(like) for values in numbers)
    return _ClassPlaces(whole[0], whole[1], largest, counted, size, nodes, mix, sized, owned)


def _interpolation(sizes: NDArray[np.int64], dtype: torch.dtype) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sizes (nodes), and for each given size a row of weights, with which any 1 / (value + w) is interpolated.

    w is in proportion to size + 1. At Chebyshev's points in log w the error falls by `rate` with each node, whatever
    the value is, since the function is smooth within pi of the real axis.
    """
    logs = np.log(sizes + 1)
    middle, half = (logs[0] + logs[-1]) / 2, (logs[-1] - logs[0]) / 2
    if len(sizes) > 1:
        rate = np.pi / half + np.hypot(np.pi / half, 1)
        count = int(np.ceil(-np.log(torch.finfo(dtype).eps) / np.log(rate))) + 1
        if count < len(sizes):
            angles = (np.arange(count) + 0.5) * np.pi / count
            points = middle + half * np.cos(angles)
            shares = (-1.0) ** np.arange(count) * np.sin(angles)
            away = logs[:, None] - points
            quotients = shares / np.where(away == 0, np.finfo(float).tiny, away)
            return np.exp(points) - 1, quotients / quotients.sum(1, keepdims=True)
    return sizes, np.eye(len(sizes))


def _deviations(frame: _EigenFrame, places: _ClassPlaces, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Each unit minus its class's mean, sorted by class; and for each class the diagonal added to their products."""
    rows, counts = frame.units[places.order], places.counts
    averages = (places.of_class.T @ rows) / counts[:, None]
    columns = rows - places.of_class @ averages
    several = counts > 1
    own = several * counts / ((counts + 1) * (counts - 1).clamp_min(1))  # lam / (k - 1); 0 for one unit
    if frame.dual:
        return columns, torch.where(several, 1 / weights + 1 / (weights.square() * own), 1.0)
    return (places.of_class @ own.sqrt())[:, None] * columns, 1 / weights


def _solved_rows(
    frame: _EigenFrame, places: _ClassPlaces, columns: Tensor, diagonal: Tensor, inverse: Tensor
) -> Tensor:
    """The rows of F_c B^-1: a batched Cholesky factorisation of all classes, padded with zeros to the largest."""
    solved = _InverseProduct.apply(frame.kernel, places.of_class @ inverse, columns)
    way, size = len(diagonal), columns.shape[1]
    padded, padded_solved = (
        rows.new_zeros(way * places.largest, size).index_copy(0, places.slots, rows).reshape(way, -1, size)
        for rows in (columns, solved)
    )
    small = (-1 if frame.dual else 1) * padded @ padded_solved.mT
    one = torch.eye(places.largest, dtype=columns.dtype, device=columns.device)
    root, trouble = torch.linalg.cholesky_ex(small + diagonal[:, None, None] * one)
    root = root.masked_fill(
        trouble[:, None, None] != 0, torch.nan
    )  # the loss shows it, and no GPU waits for it
    rows: Tensor = torch.linalg.solve_triangular(root, padded_solved, upper=False)
    return rows.reshape(-1, size)[places.slots]


def _deviations_across_dimensions(features: Tensor) -> Tensor:
    """The root of lam = 1/2 times the variance of each row."""
    variances = features.var(1) / 2 if features.shape[1] > 1 else features.new_zeros(len(features))
    return variances.clamp_min(LEAST_VARIANCE).sqrt()
