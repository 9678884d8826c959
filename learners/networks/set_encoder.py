"""The set encoder: embeds support images; the task's embedding is their mean."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias, get_args

from torch import Tensor, nn

from pipeline.errors import UsageError, check_choice
from pipeline.pixels import SYMMETRIC, PixelNormalisation, PixelScaling

EncoderNorm: TypeAlias = Literal["example", "batch", "stored"]
ENCODER_BLOCKS: Final = 5
ENCODER_GROUPS: Final = 8  # of the 64 channels, each normalised within one image
ENCODER_SMALLEST: Final = 2**ENCODER_BLOCKS  # pixels: each block halves them


class SetEncoder(nn.Module):
    """Five blocks of convolution, norm, ReLU and pooling, as in CNAPs: 150,144 parameters at 64 channels.

    norm: "example" normalises each image by itself, so that an embedding does not depend on the rest of the
    batch; LITE is biased otherwise. "batch" is the papers': statistics of the current batch, in training and
    evaluation. "stored" is that of ORBIT's code since 2022: BatchNorm with the statistics of its weights, always.
    image_size: larger images are pooled down to it first (None: never). At 224 pixels this network would cost
    twice as much as EfficientNet-B0, at 84 a quarter of it.
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        norm: EncoderNorm = "example",
        image_size: int | None = 84,
        normalisation: PixelNormalisation = SYMMETRIC,
    ) -> None:
        super().__init__()
        check_choice(norm, get_args(EncoderNorm), "the set encoder's norm")
        if image_size is not None and image_size < ENCODER_SMALLEST:
            raise UsageError(
                f"the set encoder needs images of {ENCODER_SMALLEST} pixels, not {image_size}: it halves them "
                f"{ENCODER_BLOCKS} times"
            )
        self.dim = dim
        self.mixes_images = norm == "batch"
        """Whether images of a batch affect each other, so that batches should be random ones."""
        self.scaling = PixelScaling(normalisation)
        self._largest = math.inf if image_size is None else image_size
        self._pool = None if image_size is None else nn.AdaptiveAvgPool2d(image_size)
        inputs = [3] + [dim] * (ENCODER_BLOCKS - 1)
        self.blocks = nn.Sequential(*(_block(count, dim, norm) for count in inputs))

    def forward(self, images: Tensor) -> Tensor:
        """Embed uint8 images, N x 3 x S x S: N x dim."""
        if min(images.shape[-2:]) < ENCODER_SMALLEST:
            raise UsageError(
                f"the set encoder needs images of at least {ENCODER_SMALLEST} x {ENCODER_SMALLEST} pixels, not "
                f"{images.shape[-2]} x {images.shape[-1]}"
            )
        weight = next(self.parameters())
        pixels = self.scaling(images, weight.dtype)
        if self._pool is not None and max(pixels.shape[-2:]) > self._largest:
            pixels = self._pool(pixels)
        embeddings: Tensor = self.blocks(pixels)
        return embeddings.mean((2, 3))


class StoredNorm(nn.BatchNorm2d):
    """BatchNorm with the statistics of its weights, in training too."""

    def train(self, mode: bool = True) -> StoredNorm:  # noqa: ARG002, FBT001, FBT002 - torch's signature
        return super().train(mode=False)


def _block(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(convolution, _norm(outputs, norm), nn.ReLU(inplace=True), nn.MaxPool2d(2))


def _norm(channels: int, norm: str) -> nn.Module:
    if norm == "example":
        return nn.GroupNorm(ENCODER_GROUPS, channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels, track_running_stats=False)  # the batch's statistics, always
    return StoredNorm(channels).train()
