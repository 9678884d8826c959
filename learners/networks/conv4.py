"""Four convolutions: the network of the first few-shot papers, for small images."""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn

from pipeline.errors import UsageError

CHANNELS: Final = 64
BLOCKS: Final = 4
GROUPS: Final = 8
SMALLEST: Final = 2**BLOCKS  # pixels


class Conv4(nn.Module):
    """Four blocks of convolution, norm, ReLU and pooling; the mean over what positions are left.

    At 28 pixels one position is left.
    """

    dim = CHANNELS

    def __init__(self, norm: str) -> None:
        super().__init__()
        inputs = [3] + [CHANNELS] * (BLOCKS - 1)
        self.blocks = nn.Sequential(*(_block(count, norm) for count in inputs))

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < SMALLEST:
            raise UsageError(
                f"conv4 needs images of at least {SMALLEST} x {SMALLEST} pixels, not "
                f"{x.shape[-2]} x {x.shape[-1]}"
            )
        maps: Tensor = self.blocks(x)
        return maps.mean((2, 3))


def _block(inputs: int, norm: str) -> nn.Sequential:
    block = nn.Sequential()
    block.conv = nn.Conv2d(inputs, CHANNELS, 3, padding=1)
    per_example = norm == "example"
    block.norm = nn.GroupNorm(GROUPS, CHANNELS) if per_example else nn.BatchNorm2d(CHANNELS)
    block.relu = nn.ReLU(inplace=True)
    block.pool = nn.MaxPool2d(2)
    return block
