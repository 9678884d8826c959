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

Classes of all sizes are computed together: `fit` fills blocks of the largest class's size with them where a batched
factorisation wants it, and keeps F_c B^-1 packed, one row for each support unit, so that `logits` is a few matrix
products however many class sizes a task has.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import torch
from torch import Tensor

from learners.heads.base import Head, State
from learners.heads.class_places import ClassPlaces, class_places
from learners.heads.eigen_frame import EigenFrame, InverseProduct, InverseSquares, eigen_frame
from learners.heads.fitted_classes import FittedClasses, from_groups
from learners.labels import Labels
from pipeline.errors import check_choice

OneShotCovariance: TypeAlias = Literal["zero", "official"]
LEAST_VARIANCE: Final = 1e-30  # the square root has no gradient at a variance of zero


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
        centred = features - mean
        quirk = self.one_shot == "official" and 1 in labels.counts
        frame = eigen_frame(centred, dual=len(features) < features.shape[1] and not quirk)
        means = labels.averaging(features) @ centred
        places = class_places(labels, features)
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
        solved_means = InverseProduct.apply(frame.kernel, of_class_inverse, seen)
        return FittedClasses(
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
        return state if len(state) == len(FittedClasses._fields) else from_groups(state)

    def logits(self, state: State, queries: Tensor) -> Tensor:
        fitted = FittedClasses(*state)
        moved = queries - fitted.mean
        seen = moved @ fitted.axes
        squares = InverseSquares.apply(fitted.kernel, fitted.inverses, fitted.nodes, fitted.mix, seen)
        near = squares @ fitted.of_size - 2 * seen @ fitted.solved_means.T + fitted.squares
        own = (seen @ fitted.solved_rows.T - fitted.shifts).square() @ fitted.of_class
        dual = fitted.axes.shape[1] < fitted.axes.shape[0]
        logits: Tensor = fitted.weights * (own + near if dual else own - near)
        return logits + 2 * moved @ fitted.means.T - fitted.means.square().sum(1) if dual else logits


def _deviations(frame: EigenFrame, places: ClassPlaces, weights: Tensor) -> tuple[Tensor, Tensor]:
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
    frame: EigenFrame, places: ClassPlaces, columns: Tensor, diagonal: Tensor, inverse: Tensor
) -> Tensor:
    """The rows of F_c B^-1: a batched Cholesky factorisation of blocks, in which small classes are side by side."""
    solved = InverseProduct.apply(frame.kernel, places.of_class @ inverse, columns)
    blocks, largest = places.owners.shape
    size = columns.shape[1]
    padded, padded_solved = (
        rows.new_zeros(blocks * largest, size).index_copy(0, places.slots, rows).reshape(blocks, -1, size)
        for rows in (columns, solved)
    )
    products = (-1 if frame.dual else 1) * padded @ padded_solved.mT
    small = products.masked_fill(places.owners[:, :, None] != places.owners[:, None], 0)
    added = torch.cat([diagonal, diagonal.new_ones(1)])[places.owners]  # 1 where a row is nobody's
    root, trouble = torch.linalg.cholesky_ex(small + torch.diag_embed(added))
    root = root.masked_fill(
        trouble[:, None, None] != 0, torch.nan
    )  # the loss shows it; to ask would make a GPU wait
    rows: Tensor = torch.linalg.solve_triangular(root, padded_solved, upper=False)
    return rows.reshape(-1, size)[places.slots]


def _deviations_across_dimensions(features: Tensor) -> Tensor:
    """The root of lam = 1/2 times the variance of each row."""
    variances = features.var(1) / 2 if features.shape[1] > 1 else features.new_zeros(len(features))
    return variances.clamp_min(LEAST_VARIANCE).sqrt()
