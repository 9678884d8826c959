"""A device that runs out of memory, pretended by a backbone that refuses more images than fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from learners.networks import Backbone

PLENTY = 1000  # images


@contextmanager
def memory_for(graph: int, forward: int = PLENTY) -> Iterator[None]:
    """Run out of memory above so many images with a graph, or without one."""
    original = Backbone.forward

    def forward_if_fits(self: Backbone, images: torch.Tensor, *film: object) -> torch.Tensor:
        if len(images) > (graph if torch.is_grad_enabled() else forward):
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to pass {len(images)} images.")
        return original(self, images, *film)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Backbone, "forward", forward_if_fits)
        yield
