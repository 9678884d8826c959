"""Backbones: a network that computes features, with the normalisation that its weights expect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learners.networks.activations import keep_inputs
from learners.networks.film import TENSORS_PER_PLACE, film_places, forward_with_film, install_film
from learners.networks.frozen_casts import FrozenCasts
from pipeline.errors import UsageError
from pipeline.pixels import PixelNormalisation, PixelScaling

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Backbone(nn.Module):
    """A network from uint8 images to features, in which images of a batch do not affect each other.

    So BatchNorm uses its stored statistics and nothing is dropped at random, in training as well; LITE's chunks
    are exact only then. `norm="batch"` trains BatchNorm as the papers train ProtoNets: with the statistics of the
    current batch, while `.train()` is set.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        name: str,
        dim: int,
        normalisation: PixelNormalisation,
        film: bool | str = False,
        norm: str = "example",
    ) -> None:
        super().__init__()
        if film and norm == "batch":
            raise UsageError("FiLM needs norm='example': its scale and shift belong to one task")
        self.net = net
        self.name = name
        self.dim = dim
        """Dimensions of a feature."""
        self.scaling = PixelScaling(normalisation)
        self._film_norms = list(film_places(net, film).values())
        self.film_channels = install_film(self._film_norms)
        """The channels of each norm that takes FiLM, in order."""
        keep_inputs(net)
        self._frozen = FrozenCasts(net)
        self.norm = norm
        self.train()

    @property
    def mixes_images(self) -> bool:
        """Whether images of a batch affect each other in training."""
        return self.norm == "batch"

    @property
    def normalisation(self) -> PixelNormalisation:
        """Of the pixels that the network sees."""
        return self.scaling.normalisation

    def forward(self, images: Tensor, film: Sequence[Tensor] = ()) -> Tensor:
        """Compute features, n x dim; `film` is gamma_1, beta_1, gamma_2, ..., or empty."""
        if images.dtype != torch.uint8:
            raise UsageError(f"a backbone needs images as uint8, not {images.dtype}")
        if len(film) not in (0, TENSORS_PER_PLACE * len(self.film_channels)):
            raise UsageError(
                f"{self.name} has {len(self.film_channels)} places for FiLM, so it needs "
                f"{TENSORS_PER_PLACE * len(self.film_channels)} tensors, not {len(film)}"
            )
        pixels = self.scaling(images, next(self.net.parameters()).dtype)
        net = self.net if self.mixes_images else self._frozen.network(images.device)
        return forward_with_film(net, self._film_norms, pixels, film)

    def train(self, mode: bool = True) -> Backbone:  # noqa: FBT001, FBT002 - torch's signature
        """Set training mode; the network's parts stay in eval mode, but for BatchNorm with norm="batch"."""
        super().train(mode)
        self.net.eval()
        for module in self.net.modules():
            if self.norm == "batch" and isinstance(module, BATCH_NORMS):
                module.train(mode)
        return self
