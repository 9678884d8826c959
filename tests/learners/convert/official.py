"""The authors' learners, written anew from what they do: their parameter names, their forward passes, random weights.

Backbones of 2021 and of LITE are here; those since 2022 are timm's, as in the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Film = Sequence[Tensor]  # gamma_1, beta_1, gamma_2, ...
BORDER_SIZE = 224
STAGES = (  # of EfficientNet-B0: blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112), (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)  # fmt: skip


class BorderedConv(nn.Conv2d):
    """TensorFlow's SAME borders, for a map of a size that was known when the network was made."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, size: int, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, bias=False, groups=groups)
        steps = -(-size // stride)
        zeros = max((steps - 1) * stride + kernel - size, 0)
        self.zeros = [zeros // 2, zeros - zeros // 2] * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, self.zeros))


def adapted(x: Tensor, film: Iterator[Tensor] | None) -> Tensor:
    if film is None:
        return x
    gamma, beta = next(film), next(film)
    return gamma[:, None, None] * x + beta[:, None, None]


class InvertedBlock(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, size: int
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self._expand_conv = BorderedConv(inputs, wide, 1, 1, size)
            self._bn0 = nn.BatchNorm2d(wide, eps=1e-3)
        self._depthwise_conv = BorderedConv(wide, wide, kernel, stride, size, groups=wide)
        self._bn1 = nn.BatchNorm2d(wide, eps=1e-3)
        self._se_reduce = nn.Conv2d(wide, max(1, inputs // 4), 1)
        self._se_expand = nn.Conv2d(max(1, inputs // 4), wide, 1)
        self._project_conv = BorderedConv(wide, outputs, 1, 1, size)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor, film: Iterator[Tensor] | None) -> Tensor:
        y = x
        if hasattr(self, "_expand_conv"):
            y = functional.silu(self._bn0(self._expand_conv(y)))
        y = functional.silu(adapted(self._bn1(self._depthwise_conv(y)), film))
        squeezed = functional.silu(self._se_reduce(y.mean((2, 3), keepdim=True)))
        y = self._bn2(self._project_conv(torch.sigmoid(self._se_expand(squeezed)) * y))
        made: Tensor = y + x if self.skip else y
        return made


class EfficientNetB0(nn.Module):
    """efficientnet_pytorch's names; its borders are those of 224 pixels."""

    film_sizes = (32, 32, 96, 144, 144, 240, 240, 480, 480, 480, 672, 672, 672, 1152, 1152, 1152, 1152, 1280)

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._conv_stem = BorderedConv(3, 32, 3, 2, BORDER_SIZE)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        self._blocks = nn.ModuleList()
        inputs, size = 32, BORDER_SIZE // 2
        for count, kernel, stride, expansion, outputs in STAGES:
            for number in range(count):
                step = stride if number == 0 else 1
                self._blocks.append(InvertedBlock(inputs, outputs, kernel, step, expansion, size))
                inputs, size = outputs, math.ceil(size / step)
        self._conv_head = BorderedConv(320, 1280, 1, 1, size)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, max(classes, 1))
        if not classes:  # LITE's code makes a layer of no outputs
            self._fc.weight, self._fc.bias = (nn.Parameter(p[:0]) for p in (self._fc.weight, self._fc.bias))

    def forward(self, x: Tensor, film: Film | None = None) -> Tensor:
        rest = iter(film) if film else None
        x = functional.silu(adapted(self._bn0(self._conv_stem(x)), rest))
        for block in self._blocks:
            x = block(x, rest)
        return functional.silu(adapted(self._bn1(self._conv_head(x)), rest)).mean((2, 3))


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        stride = 1 if inputs == outputs else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        if stride > 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, 2, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor, film: Iterator[Tensor] | None) -> Tensor:
        y = functional.relu(adapted(self.bn1(self.conv1(x)), film))
        y = adapted(self.bn2(self.conv2(y)), film)
        return functional.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


class SmallResNet(nn.Module):
    film_sizes = (64,) * 4 + (128,) * 4 + (256,) * 4 + (512,) * 4

    def __init__(self, kernel: int, *, pool: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, kernel, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = pool
        widths = (64, 64, 128, 256, 512)
        for number in range(1, 5):
            before, own = widths[number - 1], widths[number]
            self.add_module(f"layer{number}", nn.Sequential(BasicBlock(before, own), BasicBlock(own, own)))

    def forward(self, x: Tensor, film: Film | None = None) -> Tensor:
        rest = iter(film) if film else None
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, 1) if self.pool else x
        for number in range(1, 5):
            for block in self.get_submodule(f"layer{number}").children():
                x = block(x, rest)
        return x.mean((2, 3))


class PrePoolNet(nn.Module):
    """The set encoder's network."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(1, 6):
            conv = nn.Conv2d(3 if number == 1 else 64, 64, 3, 1, 1)
            self.add_module(
                f"layer{number}", nn.Sequential(conv, nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2))
            )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x.mean((2, 3))


class DenseBlock(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(64, 64)
        self.layernorm = nn.LayerNorm(64)
        self.linear2 = nn.Linear(64, outputs)

    def forward(self, z: Tensor) -> Tensor:
        made: Tensor = self.linear2(functional.relu(self.layernorm(self.linear1(z))))
        return made


class DenseBlock2022(nn.Module):
    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, outputs))

    def forward(self, z: Tensor) -> Tensor:
        made: Tensor = self.block(z)
        return made


def regulariser(count: int) -> nn.Parameter:
    return nn.Parameter(0.1 * torch.randn(count))


class AdapterLayer(nn.Module):
    """The generators of the FiLM of some norms: a list, or a list of lists for a stage of ResNet's blocks."""

    def __init__(self, sizes: Sequence[int], per_block: int) -> None:
        super().__init__()
        self.per_block = per_block
        for kind in ("gamma", "beta"):
            made: list[nn.Module] = [DenseBlock(count) for count in sizes]
            scales = [regulariser(count) for count in sizes]
            if per_block > 1:
                blocks = range(0, len(sizes), per_block)
                made = [nn.ModuleList(made[at : at + per_block]) for at in blocks]
                lists = nn.ModuleList(nn.ParameterList(scales[at : at + per_block]) for at in blocks)
                self.add_module(f"{kind}_regularizers", lists)
            else:
                self.add_module(f"{kind}_regularizers", nn.ParameterList(scales))
            self.add_module(f"{kind}_generators", nn.ModuleList(made))

    def forward(self, z: Tensor) -> list[Tensor]:
        made: dict[str, list[Tensor]] = {}
        for kind in ("gamma", "beta"):
            nets = [
                m for m in self.get_submodule(f"{kind}_generators").modules() if isinstance(m, DenseBlock)
            ]
            scales = list(self.get_submodule(f"{kind}_regularizers").parameters())
            made[kind] = [net(z) * scale for net, scale in zip(nets, scales, strict=True)]
        return [t for g, b in zip(made["gamma"], made["beta"], strict=True) for t in (g + 1, b)]


class Adapter(nn.Module):
    def __init__(self, sizes: Sequence[int], per_layer: int, per_block: int) -> None:
        super().__init__()
        groups = [sizes[at : at + per_layer] for at in range(0, len(sizes), per_layer)]
        self.layers = nn.ModuleList(AdapterLayer(group, per_block) for group in groups)

    def forward(self, z: Tensor) -> list[Tensor]:
        return [tensor for layer in self.layers for tensor in layer(z)]


class Generator2022(nn.Module):
    """FiLM since 2022: weights and biases of norms, in the order of their names."""

    def __init__(self, first: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.first = {name: first[name].detach().clone() for name in sorted(first)}
        self.generators = nn.ModuleList(DenseBlock2022(len(value)) for value in self.first.values())
        self.regularizers = nn.ParameterList(regulariser(len(value)) for value in self.first.values())

    def forward(self, z: Tensor) -> dict[str, Tensor]:
        made = {}
        for at, (name, value) in enumerate(self.first.items()):
            change = self.generators[at](z) * self.regularizers[at]
            made[name] = value * (change + 1) if name.endswith("weight") else value + change
        return made
