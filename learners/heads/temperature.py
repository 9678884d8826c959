"""The temperature that makes logits say how likely each class is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from torch import Tensor

SHARPEST, DULLEST = 1e-6, 1e9  # the range that is searched
HALVINGS: Final = 60


def best_temperature(scored: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    """The temperature with the least mean loss, to three digits, from logits at temperature 1 and labels.

    None where the logits tell the classes no better than chance.

    One of the labels counts as drawn from all classes (Platt's targets), so that a softmax that is always right
    has a finite temperature, too. The loss is convex in 1 / temperature, and its slope has one zero.
    """
    doubt = 1 / (1 + sum(len(labels) for _, labels in scored))
    pairs = [(scores.double().cpu(), labels.cpu()) for scores, labels in scored]

    def slope(sharpness: float) -> float:
        total = 0.0
        for scores, labels in pairs:
            right = scores.gather(1, labels[:, None])[:, 0]
            wanted = (1 - doubt) * right + doubt * scores.mean(1)
            total += float((((scores * sharpness).softmax(1) * scores).sum(1) - wanted).mean())
        return total

    low, high = math.log(1 / DULLEST), math.log(1 / SHARPEST)
    if slope(1 / DULLEST) >= 0:
        return None
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(math.exp(middle)) < 0 else (low, middle)
    return float(f"{math.exp(-(low + high) / 2):.3g}")
