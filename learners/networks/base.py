"""A network that makes features, and what belongs to its weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learners.networks.film import PER_PLACE, filmed, install, places
from pipeline.errors import UsageError
from pipeline.pixels import Normalisation, normalise

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Backbone(nn.Module):
    """uint8 images become features, each image by itself whatever else is in the batch.

    So BatchNorm uses the statistics of its weights and nothing is dropped at random, in training too;
    LITE's chunks are exact only then. `norm="batch"` trains BatchNorm as the papers train ProtoNets:
    with statistics of the batch at hand, while `.train()` is set.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        dim: int,
        normalisation: Normalisation,
        film: bool | str = False,
        norm: str = "example",
    ) -> None:
        super().__init__()
        if film and norm == "batch":
            raise UsageError("FiLM needs norm='example': its scale and shift belong to one task")
        self.net = net
        self.name = name
        self.dim = dim
        """Of a feature."""
        self.normalisation = normalisation
        self.film_channels = install(list(places(net, film).values()))
        """Of each place where FiLM applies, in order."""
        self.norm = norm
        self.train()

    def forward(self, images: Tensor, film: Sequence[Tensor] = ()) -> Tensor:
        """Features, n x dim; `film` is gamma_1, beta_1, gamma_2, ..., or nothing."""
        if images.dtype != torch.uint8:
            raise UsageError(f"a backbone needs images as uint8, not {images.dtype}")
        if len(film) not in (0, PER_PLACE * len(self.film_channels)):
            raise UsageError(
                f"{self.name} has {len(self.film_channels)} places for FiLM, so it needs "
                f"{PER_PLACE * len(self.film_channels)} tensors, not {len(film)}"
            )
        pixels = normalise(images, self.normalisation, next(self.net.parameters()).dtype)
        return filmed(self.net, pixels, film)

    def train(self, mode: bool = True) -> Backbone:  # noqa: FBT001, FBT002 - torch's signature
        """As torch's, but no part of the network changes what it does unless norm is "batch"."""
        super().train(mode)
        self.net.eval()
        for module in self.net.modules():
            if self.norm == "batch" and isinstance(module, BATCH_NORMS):
                module.train(mode)
        return self
