"""The temperature that fits: found where it is known, the same for all processes, refused where there is none."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from learners.heads.temperature import best_temperature

TASKS = 40


def asked(temperature: float, *, queries: int = 50, way: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Logits, and labels that are drawn as their softmax at this temperature says."""
    random = torch.Generator().manual_seed(3)
    logits = [10 * torch.randn(queries, way, generator=random) for _ in range(TASKS)]
    return [
        (each, torch.multinomial((each / temperature).softmax(1), 1, generator=random)[:, 0])
        for each in logits
    ]


def loss(pairs: list[tuple[torch.Tensor, torch.Tensor]], temperature: float) -> float:
    losses = [functional.cross_entropy(logits.double() / temperature, labels) for logits, labels in pairs]
    return float(torch.stack(losses).mean())


def best(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    found = best_temperature(pairs)
    assert found is not None
    return found


@pytest.mark.parametrize("temperature", [0.5, 6.0, 40.0])
def test_labels_drawn_at_a_temperature_tell_it(temperature: float) -> None:
    assert best(asked(temperature)) == pytest.approx(temperature, rel=0.15)


def test_no_other_has_less_loss() -> None:
    pairs = asked(6.0)
    least = loss(pairs, best(pairs))
    assert all(least < loss(pairs, best(pairs) * factor) for factor in (0.8, 0.9, 1.1, 1.25))


def test_logits_of_another_scale_have_the_temperature_of_that_scale() -> None:
    pairs = asked(6.0)
    far = [(1000 * logits, labels) for logits, labels in pairs]
    assert best(far) == pytest.approx(1000 * best(pairs), rel=0.01)


def test_answers_that_are_all_right_have_a_finite_sharpness() -> None:
    logits = 5 * torch.eye(4)
    found = best([(logits, torch.arange(4))] * 10)
    right = (logits / found).softmax(1).diagonal()
    assert found > 0
    assert right == pytest.approx([1 - 0.75 / 41] * 4, rel=0.01)


def test_logits_that_tell_nothing_have_none() -> None:
    assert best_temperature([(torch.eye(4), (torch.arange(4) + 1) % 4)]) is None
