"""What adapting costs, counted as the papers count it: parameters, multiply-accumulates, steps.

The rules are those of ORBIT's code of 2021, which the paper's Table 1 is made with. A convolution or a linear
layer has its products (a convolution's bias is one more per output), a norm two operations per element, a
layer of average pooling one per element and one per output; activations and maximum pooling are free. So is
what no such layer computes, the products of attention among them. Heads are counted by formulas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from learners.heads.base import Head
from learners.heads.linear import Linear, LinearGenerator
from learners.heads.mahalanobis import Mahalanobis
from learners.heads.prototypes import Cosine, Euclidean
from learners.learner import StagedLearner, evaluating
from learners.methods.finetuner import FineTuner
from learners.methods.maml import MAML
from learners.networks.base import BATCH_NORMS
from learners.networks.film import FilmGenerator
from pipeline.errors import UsageError

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS: Final = (*BATCH_NORMS, nn.GroupNorm, nn.LayerNorm)
COUNTED: Final = (*CONVOLUTIONS, nn.Linear, nn.AdaptiveAvgPool2d, *NORMS)
BOTH_WAYS: Final = 2  # forward and backward, which the papers count as one more forward


def parameters(net: nn.Module) -> int:
    """Numbers that make a learner, frozen ones too; neither buffers nor the head of one task."""
    return sum(parameter.numel() for parameter in net.parameters())


def steps(net: nn.Module) -> str:
    """How a learner adapts: 1F is one pass forward, 15FB are fifteen forward and backward."""
    return f"{net.descent.steps}FB" if isinstance(net, MAML | FineTuner) else "1F"


def adapt_macs(
    net: nn.Module, image_size: int, images: int, way: int, clip: int = 1
) -> float | None:
    """Multiply-accumulates to adapt to `images` support images of `way` classes, in clips of `clip`.

    None for a head of which no formula is known. For many tasks take `Adaptation.of` once.
    """
    return Adaptation.of(net, image_size).macs(images, way, clip)


@dataclass(frozen=True, kw_only=True, slots=True)
class Adaptation:
    """What one image costs a learner's networks, and what the rest of adapting costs."""

    encoder: int
    """Of the set encoder, for an image."""
    generator: int
    """Of FiLM, for a task."""
    backbone: int
    """For an image."""
    dim: int
    """Of a feature."""
    head: Head
    steps: int | None
    """Passes forward and backward over the support set; None: one pass forward."""

    @classmethod
    def of(cls, net: nn.Module, image_size: int) -> Adaptation:
        """Measured by passing one black image."""
        if isinstance(net, MAML | FineTuner):
            return cls(
                encoder=0, generator=0, backbone=network_macs(net.backbone, image_size),
                dim=net.backbone.dim, head=Linear(), steps=net.descent.steps,
            )  # fmt: skip
        if not isinstance(net, StagedLearner):
            raise UsageError(
                f"the cost of a {type(net).__name__} is not known: needed a staged learner, MAML or FineTuner"
            )
        return cls(
            encoder=network_macs(net.encoder, image_size) if net.encoder is not None else 0,
            generator=_generator(net.generator),
            backbone=network_macs(net.backbone, image_size),
            dim=net.backbone.dim,
            head=net.head,
            steps=None,
        )

    def macs(self, images: int, way: int, clip: int = 1) -> float | None:
        """To adapt to a support set.

        Comparable with Table 1, so two of our learners do less than this: FineTuner without FiLM passes the
        support set once and not at each step, and our Mahalanobis head needs no inverse per class.
        """
        if type(self.head) not in HEADS:
            return None
        units = images // clip
        pooling = images * self.dim if clip > 1 else 0
        head = HEADS[type(self.head)](self.head, units, way, self.dim)
        if self.steps is not None:
            return self.steps * (BOTH_WAYS * (images * self.backbone + head) + pooling)
        return images * (self.encoder + self.backbone) + self.generator + pooling + head


@torch.no_grad()
def network_macs(network: nn.Module, image_size: int) -> int:
    """Of one image's pass through a network that takes uint8 images."""
    device = next(network.parameters()).device
    image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8, device=device)
    with evaluating(network), _counting(network) as counts:
        network(image)
    return sum(counts)


@contextmanager
def _counting(network: nn.Module) -> Iterator[list[int]]:
    """What each layer of a network costs, in the order in which it is called."""
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        counts.append(_layer(layer, inputs[0], output))

    layers = [layer for layer in network.modules() if isinstance(layer, COUNTED)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _layer(layer: nn.Module, images: Tensor, output: Tensor) -> int:
    if isinstance(layer, CONVOLUTIONS):
        window = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
        return output.numel() * (window + (layer.bias is not None))
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        window = math.prod(images.shape[-2:]) // math.prod(output.shape[-2:])
        return output.numel() * (window + 1)
    return 2 * images.numel()


def _generator(generator: nn.Module | None) -> int:
    """Ours multiplies with parameters and has no layers; another's linear layers work once per task."""
    if generator is None:
        return 0
    if isinstance(generator, FilmGenerator):
        return generator.first.numel() + generator.last.numel()
    return _weights(generator)


def _weights(module: nn.Module) -> int:
    """Products of its linear layers, each used once."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def _means(units: int, way: int, dim: int) -> int:
    """To pick out the units of each class, and to average them."""
    return units * way + units * dim


def _euclidean(_head: Head, units: int, way: int, dim: int) -> float:
    return _means(units, way, dim) + 3 * way * dim  # to double, to square, to change the sign


def _cosine(_head: Head, units: int, way: int, dim: int) -> float:
    return _means(units, way, dim) + 2 * way * dim  # to square, to divide


def _linear_generator(head: Head, units: int, way: int, dim: int) -> float:
    return _means(units, way, dim) + way * _weights(head)


def _mahalanobis(_head: Head, units: int, way: int, dim: int) -> float:
    """A covariance of all units, and one and an inverse for each class, as the papers compute it."""
    covariances = (
        2 * (units * dim**2 + 2 * units * dim) + 1 + way
    )  # each unit counts for all and its own
    inverse = dim**3 / 3 + dim**2 - 4 * dim / 3
    return _means(units, way, dim) + covariances + way * (1 + 2 * dim**2 + inverse)


def _linear(_head: Head, units: int, way: int, dim: int) -> float:
    """Of one step: the logits of all units."""
    return units * way * dim


HEADS: Final[Mapping[type[Head], Callable[[Head, int, int, int], float]]] = {
    Euclidean: _euclidean,
    Cosine: _cosine,
    LinearGenerator: _linear_generator,
    Mahalanobis: _mahalanobis,
    Linear: _linear,
}
"""Of a head, support units, way and the features' dimension."""
