"""Emulated tensor cores: what is rounded, how, and what is left alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.grad import conv2d_input, conv2d_weight

from learners.heads.base import full_precision
from learners.networks.arithmetic import Precision, autocast_dtype
from learners.study.tensor_cores import computing, round_to_tf32

CPU = torch.device("cpu")


def test_tf32_keeps_ten_bits_and_ties_go_to_the_even_number() -> None:
    step = 2.0**-10
    given = [1, 1 + step, 1 + step / 2, 1 + 1.5 * step, 1 + 0.51 * step, -1 - step / 4, 0, float("inf")]
    expected = [1, 1 + step, 1, 1 + 2 * step, 1 + step, -1, 0, float("inf")]
    assert round_to_tf32(torch.tensor(given)).tolist() == expected
    values = torch.randn(10_000, generator=torch.Generator().manual_seed(0)) * 1e-3
    rounded = round_to_tf32(values)
    assert 0.9 * 2**-11 < float(((rounded - values) / values).abs().max()) <= 2**-11
    assert torch.equal(round_to_tf32(rounded), rounded)
    assert round_to_tf32(torch.tensor([float("nan")])).isnan().all()


def by_hand(images: Tensor, weights: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A convolution and its gradients, with factors rounded to TF32 and all else in float32."""
    images, weights, gradient = map(round_to_tf32, (images, weights, gradient))
    made = torch.conv2d(images, weights)
    by_images = conv2d_input(images.shape, weights, gradient)  # type: ignore[no-untyped-call]
    by_weights = conv2d_weight(images, weights.shape, gradient)  # type: ignore[no-untyped-call]
    return made, by_images, by_weights


def test_a_convolution_and_its_gradients_have_rounded_factors() -> None:
    torch.manual_seed(0)
    images, weights = torch.randn(3, 4, 7, 7, requires_grad=True), torch.randn(5, 4, 3, 3, requires_grad=True)
    gradient = torch.randn(3, 5, 5, 5)
    expected = by_hand(images.detach(), weights.detach(), gradient)
    with computing("tf32", CPU):
        made = torch.conv2d(images, weights)
        found = torch.autograd.grad(made, (images, weights), gradient)
    for one, other in zip((made, *found), expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-5)
    difference = (made - torch.conv2d(images, weights)).detach()
    assert float(difference.norm() / made.detach().norm()) > 1e-4


@pytest.mark.parametrize("product", [torch.mm, torch.matmul, lambda a, b: torch.addmm(a.new_ones(4), a, b)])
def test_a_matrix_product_has_rounded_factors_but_in_a_head(
    product: Callable[[Tensor, Tensor], Tensor],
) -> None:
    torch.manual_seed(0)
    one, other = torch.randn(3, 6), torch.randn(6, 4)
    expected = product(round_to_tf32(one), round_to_tf32(other))
    with computing("tf32", CPU):
        assert torch.allclose(product(one, other), expected, rtol=1e-6, atol=1e-6)
        with full_precision(CPU):
            inside = product(one, other)
    assert torch.allclose(inside, product(one, other), rtol=1e-7, atol=0)
    assert not torch.allclose(expected, product(one, other), rtol=1e-7, atol=0)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_products_of_half_precision_are_summed_in_float32_and_rounded_once(precision: Precision) -> None:
    torch.manual_seed(0)
    dtype = autocast_dtype(precision)
    one, other = (torch.randn(40, 40).to(dtype) for _ in range(2))
    with computing(precision, CPU):
        found = one @ other
        convolved = torch.conv2d(one.view(1, 4, 20, 20), other.view(4, 4, 10, 10))
    assert torch.equal(found, (one.float() @ other.float()).to(dtype))
    assert convolved.dtype == dtype
    exact = torch.conv2d(one.float().view(1, 4, 20, 20), other.float().view(4, 4, 10, 10))
    assert torch.equal(convolved, exact.to(dtype))


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_float64_and_what_is_no_product_are_left_alone(precision: Precision) -> None:
    torch.manual_seed(0)
    wide, values = torch.randn(5, 5, dtype=torch.float64), torch.randn(5, 5)
    expected = wide @ wide, (values * values).sum(0)
    with computing(precision, CPU):
        found = wide @ wide, (values * values).sum(0)
    assert all(map(torch.equal, expected, found))
