"""A support set in the eigenvectors of S, where (S + w I)^-1 is diagonal for any w (see `learners.heads.mahalanobis`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pipeline.errors import PipelineError


class EigenFrame(NamedTuple):
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


def eigen_frame(centred: Tensor, *, dual: bool) -> EigenFrame:
    """The frame of centred features, N x d; `dual` takes the N x N matrix instead of the d x d one."""
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
        return EigenFrame(axes, _gradient_collector(axes), values, vectors, dual)
    units = centred @ vectors
    return EigenFrame(vectors, _gradient_collector(units), values, units, dual)


def _gradient_collector(rows: Tensor) -> Tensor:
    """The kernel of rows; nothing where they need no gradient."""
    kernel: Tensor = _GramMatrix.apply(rows) if rows.requires_grad else rows.new_zeros(0, 0)
    return kernel


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


class InverseProduct(torch.autograd.Function):
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


class InverseSquares(torch.autograd.Function):
    """r^T B^-1 r of each row for each of several w, rows x sizes; the gradient as above.

    S's gradient is a sum over rows and sizes of outer products, whose entries r_i r_j / ((v_i + w) (v_j + w)) are as
    smooth in w as B^-1 itself. So the sum over sizes is one over the few `nodes`, which saves more than half of a
    head's backward pass where classes have twenty sizes.
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
        products = nodes * rows[:, None]  # rows x nodes x n
        shares = (gradient @ mix)[:, :, None]
        kernel = -(shares * products).flatten(0, 1).T @ products.flatten(0, 1)
        return kernel, None, None, None, 2 * (gradient @ inverses) * rows
