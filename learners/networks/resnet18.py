"""ResNet-18 as the LITE and ORBIT papers have it; parameters are named as in torchvision and timm."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from torch import Tensor, nn
from torch.nn import functional

WIDTHS: Final = (64, 64, 128, 256, 512)  # the stem's, then the four stages'


class ResNet18(nn.Module):
    """Stem of stride 2 with a border of 1, four stages of two blocks, the mean over positions.

    The usual network has a border of 3 around its kernel of 7; weights made for it fit by name.
    For 84 pixels the kernel is 5 and there is no pooling after it.
    """

    dim = WIDTHS[-1]

    def __init__(self, *, kernel: int, pool: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, WIDTHS[0], kernel, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.pool = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
        for number, (inputs, outputs) in enumerate(pairwise(WIDTHS), start=1):
            stride = 1 if number == 1 else 2
            blocks = (_Block(inputs, outputs, stride), _Block(outputs, outputs, 1))
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(functional.relu(self.bn1(self.conv1(x)), inplace=True))
        for number in range(1, len(WIDTHS)):
            x = self.get_submodule(f"layer{number}")(x)
        return x.mean((2, 3))


class _Block(nn.Module):
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
