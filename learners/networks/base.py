"""Backbones: a network that computes features, with the normalisation that its weights expect."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learners.networks.activations import keep_inputs
from learners.networks.film import TENSORS_PER_PLACE, film_places, forward_with_film, install_film
from learners.networks.frozen_casts import FrozenCasts
from pipeline.errors import UsageError, first_line
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
        self._patch = _patch_side(net)
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
        self.check_size(images.shape[-1])
        pixels = self.scaling(images, next(self.net.parameters()).dtype)
        net = self.net if self.mixes_images else self._frozen.network(images.device)
        try:
            return forward_with_film(net, self._film_norms, pixels, film)
        except AssertionError as error:  # by which timm's networks of one size refuse others
            raise UsageError(
                f"{self.name} does not take images of {images.shape[-1]} pixels: {first_line(error)}"
            ) from error

    def check_size(self, size: int) -> None:
        """Refuse images that a transformer cannot cut into whole patches."""
        if size % self._patch:
            below = size - size % self._patch
            sizes = " or ".join(str(side) for side in (below, below + self._patch) if side)
            raise UsageError(
                f"{self.name} sees patches of {self._patch} x {self._patch} pixels, which images of {size} pixels are "
                f"not made of; take --image-size {sizes}, from shards built with --sizes {sizes.split()[-1]}"
            )

    def train(self, mode: bool = True) -> Backbone:  # noqa: FBT001, FBT002 - torch's signature
        """Set training mode; the network's parts stay in eval mode, but for BatchNorm with norm="batch"."""
        super().train(mode)
        self.net.eval()
        for module in self.net.modules():
            if self.norm == "batch" and isinstance(module, BATCH_NORMS):
                module.train(mode)
        return self


def _patch_side(net: nn.Module) -> int:
    """The side of a transformer's patches in pixels; 1 for other networks."""
    side = getattr(getattr(net, "patch_embed", None), "patch_size", 1)
    return int(side[0] if isinstance(side, tuple) else side)
