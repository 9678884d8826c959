"""ResNet-18 as in the LITE and ORBIT papers, with the parameter names of torchvision and timm."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

RESNET18_WIDTHS: Final = (64, 64, 128, 256, 512)  # the stem's, then the four stages'


class ResNet18(nn.Module):
    """A stem of stride 2 with padding 1, four stages of two blocks, and the mean over positions.

    The usual network pads its kernel of 7 by 3; its weights fit by name. For 84 pixels the kernel is 5, without
    pooling after it.
    """

    dim = RESNET18_WIDTHS[-1]

    def __init__(self, *, kernel: int, pool: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, RESNET18_WIDTHS[0], kernel, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(RESNET18_WIDTHS[0])
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        for number, (inputs, outputs) in enumerate(pairwise(RESNET18_WIDTHS), start=1):
            stride = 1 if number == 1 else 2
            blocks = (_ResidualBlock(inputs, outputs, stride), _ResidualBlock(outputs, outputs, 1))
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
        for number in range(1, len(RESNET18_WIDTHS)):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3))


class _ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            smaller = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(smaller, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y)) + self.downsample(x)
        return functional.relu(y, inplace=True)
