"""The EfficientNet of LITE's code: the borders of a 224-pixel input, whatever the size of the image.

TensorFlow pads a strided convolution by an amount that depends on the size of its input. timm computes it from
the image; LITE's code computed it once, for 224 pixels. The two agree at 224 pixels. At 84 the third strided
convolution already makes 10 x 10 positions instead of 11 x 11, so weights trained in one network are of little use in the
other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

BORDER_SIZE: Final = 224  # pixels of the input that borders are computed for


class BorderedConv2d(nn.Conv2d):
    """A convolution after a border of zeros of a fixed width on each side."""

    borders: tuple[int, int, int, int]
    """Left, right, top, bottom."""

    def forward(self, x: Tensor) -> Tensor:
        padded = functional.pad(x, self.borders)
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def fix_borders(net: nn.Module, size: int = BORDER_SIZE) -> None:
    """Give the strided convolutions of an EfficientNet the borders of square images of `size` pixels.

    Parameters keep their names. Convolutions without a stride have the same borders at every size.
    """
    for name, conv in list(net.named_modules()):  # in the order in which images pass
        if isinstance(conv, nn.Conv2d) and max(conv.stride) > 1:
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, _bordered(conv, size))
            size = math.ceil(size / conv.stride[0])


def _bordered(conv: nn.Conv2d, size: int) -> BorderedConv2d:
    own = BorderedConv2d(
        conv.in_channels, conv.out_channels, _square(conv.kernel_size), _square(conv.stride), 0,
        groups=conv.groups, bias=conv.bias is not None,
    )  # fmt: skip
    own.weight, own.bias = conv.weight, conv.bias
    total = max((math.ceil(size / own.stride[0]) - 1) * own.stride[0] + own.kernel_size[0] - size, 0)
    before, after = total // 2, total - total // 2
    own.borders = (before, after, before, after)
    return own


def _square(sides: Sequence[int]) -> int:
    height, width = sides
    assert height == width
    return height
