"""Conv4: the four-layer network of the first few-shot papers, for small images."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from pipeline.errors import UsageError

CONV4_CHANNELS: Final = 64
CONV4_BLOCKS: Final = 4
CONV4_GROUPS: Final = 8
CONV4_SMALLEST: Final = 2**CONV4_BLOCKS  # pixels


class ConvNet4(nn.Module):
    """Four blocks of convolution, norm, ReLU and pooling, and the mean over positions (one, at 28 pixels)."""

    dim = CONV4_CHANNELS

    def __init__(self, norm: str) -> None:
        super().__init__()
        inputs = [3] + [CONV4_CHANNELS] * (CONV4_BLOCKS - 1)
        self.blocks = nn.Sequential(*(_block(count, norm) for count in inputs))

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < CONV4_SMALLEST:
            raise UsageError(
                f"conv4 needs images of at least {CONV4_SMALLEST} x {CONV4_SMALLEST} pixels, not "
                f"{x.shape[-2]} x {x.shape[-1]}"
            )
        maps: Tensor = self.blocks(x)
        return maps.mean((2, 3))


def _block(inputs: int, norm: str) -> nn.Sequential:
    block = nn.Sequential()
    block.conv = nn.Conv2d(inputs, CONV4_CHANNELS, 3, padding=1)
    per_example = norm == "example"
    block.norm = nn.GroupNorm(CONV4_GROUPS, CONV4_CHANNELS) if per_example else nn.BatchNorm2d(CONV4_CHANNELS)
    block.relu = nn.ReLU(inplace=True)
    block.pool = nn.MaxPool2d(2)
    return block
