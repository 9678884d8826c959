"""MobileNetV1 at 0.75 of its width: small and fast, for TensorFlow's weights.

Parameters are named as in timm's MobileNetV1, which has no model of this width.
"""

from __future__ import annotations

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

MOBILENET_EPSILON: Final = 1e-3  # TensorFlow's
MOBILENET_STEM: Final = 24
MOBILENET_STAGES: Final = ((48, 1), (96, 2), (192, 2), (384, 6), (768, 2))  # channels, blocks


class MobileNetV1(nn.Module):
    """A stem, thirteen depthwise separable convolutions, and the mean over positions."""

    dim = MOBILENET_STAGES[-1][0]

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _SameConv2d(3, MOBILENET_STEM, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(MOBILENET_STEM, eps=MOBILENET_EPSILON)
        self.blocks = nn.Sequential()
        inputs = MOBILENET_STEM
        for number, (outputs, count) in enumerate(MOBILENET_STAGES):
            stride = 1 if number == 0 else 2
            stage = [_SeparableConv2d(inputs, outputs, stride)]
            stage += [_SeparableConv2d(outputs, outputs, 1) for _ in range(count - 1)]
            self.blocks.append(nn.Sequential(*stage))
            inputs = outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.bn1(self.conv_stem(x)), inplace=True)
        maps: Tensor = self.blocks(x)
        return maps.mean((2, 3))


class _SeparableConv2d(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = _SameConv2d(inputs, inputs, 3, stride, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs, eps=MOBILENET_EPSILON)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs, eps=MOBILENET_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        return functional.relu6(self.bn2(self.conv_pw(x)), inplace=True)


class _SameConv2d(nn.Conv2d):
    """A 3 x 3 convolution with TensorFlow's padding: even sides are padded at the bottom and right only."""

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 1:
            return functional.conv2d(x, self.weight, None, 1, 1, groups=self.groups)
        height, width = (side % 2 for side in x.shape[-2:])
        padded = functional.pad(x, (width, 1, height, 1))
        return functional.conv2d(padded, self.weight, None, self.stride, 0, groups=self.groups)
