"""The loss scale of float16: steps are those without it, overflows are skipped, and a restored scale goes on alike."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from learners.networks.arithmetic import FIRST_LOSS_SCALE
from learners.training.loss_scale import GROWTH_STEPS, LossScale
from pipeline.errors import IntegrityError

CPU = torch.device("cpu")


def weights_and_optimizer() -> tuple[nn.Parameter, torch.optim.Optimizer]:
    weights = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
    return weights, torch.optim.Adam([weights], lr=0.1)


def take_step(scale: LossScale, weights: nn.Parameter, optimizer: torch.optim.Optimizer, last: float) -> None:
    """A step with a gradient of 1, 2 and `last`."""
    weights.grad = torch.tensor([1.0, 2.0, last]) * scale.value
    scale.step(optimizer)
    optimizer.zero_grad()


@pytest.mark.parametrize("precision", ["tf32", "float32", "bfloat16"])
def test_other_precisions_have_none(precision: str) -> None:
    scale = LossScale(precision, CPU)  # type: ignore[arg-type]
    weights, optimizer = weights_and_optimizer()
    take_step(scale, weights, optimizer, float("inf"))
    assert scale.value == 1
    assert (scale.record(), scale.state(), scale.verdict()) == ({}, {}, "")
    scale.restore(None, "a checkpoint")


def test_a_step_is_that_without_the_scale() -> None:
    found = []
    for precision in ("float16", "float32"):
        scale = LossScale(precision, CPU)
        weights, optimizer = weights_and_optimizer()
        for last in (0.5, -3.0):
            take_step(scale, weights, optimizer, last)
        assert not scale.overflowed
        found.append(weights.detach().clone())
    assert torch.equal(*found)


@pytest.mark.parametrize("last", [float("inf"), float("-inf"), float("nan")])
def test_an_overflow_skips_the_step_halves_the_scale_and_says_so(last: float) -> None:
    scale = LossScale("float16", CPU)
    weights, optimizer = weights_and_optimizer()
    before = weights.detach().clone()
    take_step(scale, weights, optimizer, last)
    assert torch.equal(weights, before)
    assert scale.value == FIRST_LOSS_SCALE / 2
    assert (
        scale.verdict() == "the gradient overflowed float16: this step is skipped, the loss scale is now 2048"
    )
    take_step(scale, weights, optimizer, 1.0)
    assert scale.verdict() == ""
    assert not torch.equal(weights, before)


def test_the_scale_doubles_after_many_steps_without_overflow() -> None:
    scale = LossScale("float16", CPU)
    weights, optimizer = weights_and_optimizer()
    for _ in range(GROWTH_STEPS - 1):
        take_step(scale, weights, optimizer, 1.0)
    assert scale.value == FIRST_LOSS_SCALE
    take_step(scale, weights, optimizer, 1.0)
    assert scale.value == 2 * FIRST_LOSS_SCALE
    assert not scale.overflowed


def test_gradients_that_overflow_at_every_scale_exhaust_it() -> None:
    scale = LossScale("float16", CPU)
    weights, optimizer = weights_and_optimizer()
    while scale.value > 1:
        take_step(scale, weights, optimizer, float("inf"))
        assert not scale.exhausted
    take_step(scale, weights, optimizer, float("inf"))
    assert scale.exhausted


def test_a_restored_scale_goes_on_as_the_first_would() -> None:
    scale, restored = LossScale("float16", CPU), LossScale("float16", CPU)
    weights, optimizer = weights_and_optimizer()
    for last in (float("inf"), 1.0, 1.0):
        take_step(scale, weights, optimizer, last)
    restored.restore(scale.state(), "a checkpoint")
    assert restored.state() == scale.state() == {"value": FIRST_LOSS_SCALE / 2, "steps": 2}
    for one in (scale, restored):
        for _ in range(GROWTH_STEPS - 2):
            take_step(one, weights, optimizer, 1.0)
    assert restored.state() == scale.state() == {"value": FIRST_LOSS_SCALE, "steps": 0}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (None, r"old.safetensors: the loss scale of float16"),
        ({"value": 4.0}, r"missing required field `steps`"),
        ({"value": "4", "steps": 1}, r"Expected `float`"),
        ({"value": float("nan"), "steps": 1}, r"a loss scale of nan after 1 steps cannot be"),
        ({"value": 0.0, "steps": 1}, r"a loss scale of 0.0"),
        ({"value": 4.0, "steps": -1}, r"after -1 steps"),
        ({"value": 4.0, "steps": GROWTH_STEPS}, r"after 200 steps"),
    ],
)
def test_a_damaged_state_is_refused(state: object, message: str) -> None:
    with pytest.raises(IntegrityError, match=message):
        LossScale("float16", CPU).restore(state, "old.safetensors")
