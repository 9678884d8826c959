"""The set encoder: embeds support images; the task's embedding is their mean."""

from __future__ import annotations

from typing import Final, Literal

from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError
from pipeline.pixels import SYMMETRIC, PixelNormalisation, normalise

ENCODER_BLOCKS: Final = 5
ENCODER_GROUPS: Final = 8  # of the 64 channels, each normalised within one image
ENCODER_SMALLEST: Final = 2**ENCODER_BLOCKS  # pixels: each block halves them


class SetEncoder(nn.Module):
    """Five blocks of convolution, norm, ReLU and pooling, as in CNAPs: 150,144 parameters at 64 channels.

    norm: "example" normalises each image by itself, so that an embedding does not depend on the rest of the
    batch; LITE is biased otherwise. "batch" is the papers': statistics of the current batch, in training and
    evaluation.
    image_size: larger images are pooled down to it first (None: never). At 224 pixels this network would cost
    twice as much as EfficientNet-B0, at 84 a quarter of it.
    """

    def __init__(
        self,
        dim: int = 64,
        *,
        norm: Literal["example", "batch"] = "example",
        image_size: int | None = 84,
        normalisation: PixelNormalisation = SYMMETRIC,
    ) -> None:
        super().__init__()
        if norm not in ("example", "batch"):
            raise UsageError(f"the set encoder's norm is 'example' or 'batch', not {norm!r}")
        if image_size is not None and image_size < ENCODER_SMALLEST:
            raise UsageError(
                f"the set encoder needs images of {ENCODER_SMALLEST} pixels, not {image_size}: it halves them "
                f"{ENCODER_BLOCKS} times"
            )
        self.dim = dim
        self.normalisation = normalisation
        self._image_size = image_size
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
        pixels = normalise(images, self.normalisation, weight.dtype)
        if self._image_size is not None and max(pixels.shape[-2:]) > self._image_size:
            pixels = functional.adaptive_avg_pool2d(pixels, self._image_size)
        embeddings: Tensor = self.blocks(pixels)
        return embeddings.mean((2, 3))


def _block(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    normed = (
        nn.GroupNorm(ENCODER_GROUPS, outputs)
        if norm == "example"
        else nn.BatchNorm2d(outputs, track_running_stats=False)  # the batch's statistics, always
    )
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Sequential(convolution, normed, nn.ReLU(inplace=True), nn.MaxPool2d(2))
