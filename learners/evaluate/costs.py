"""The cost of adapting, counted as the papers count it: parameters, multiply-accumulates, steps.

The rules are those of ORBIT's code of 2021, which made the paper's Table 1. A convolution or a linear layer
counts its products (a convolution's bias is one more per output), a norm two operations per element, average
pooling one per element and one per output. Activations, maximum pooling and everything outside such layers,
the products of attention for example, count nothing. Heads are counted by formulas.

Networks are counted by running them. All 15 rows of Table 1 come out as printed with the papers' set encoder
(`--encoder-norm batch --encoder-size 0`); ours sees smaller images and costs less, which reports note.
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
from learners.heads.discriminant import LinearDiscriminant
from learners.heads.linear import LinearGenerator, LinearHead
from learners.heads.logistic import LogisticHead
from learners.heads.mahalanobis import MahalanobisHead
from learners.heads.prototypes import CosinePrototypes, EuclideanPrototypes
from learners.learner import MetaLearner
from learners.networks.base import BATCH_NORMS
from learners.networks.film import FilmGenerator
from learners.task import evaluating
from pipeline.errors import UsageError

CONVOLUTION_LAYERS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
COUNTED_NORMS: Final = (*BATCH_NORMS, nn.GroupNorm, nn.LayerNorm)
COUNTED_LAYERS: Final = (*CONVOLUTION_LAYERS, nn.Linear, nn.AdaptiveAvgPool2d, *COUNTED_NORMS)
LOGISTIC_EVALUATIONS: Final = 50  # of the objective; 21 to 67 on drawn features of 5 to 50 classes
BOTH_WAYS: Final = 2  # forward and backward, which the papers count as one more forward


def count_parameters(net: nn.Module) -> int:
    """The number of a learner's parameters, frozen ones too, without buffers and the head of a task."""
    return sum(parameter.numel() for parameter in net.parameters())


def adaptation_steps(net: MetaLearner) -> str:
    """How a learner adapts: 1F is one pass forward, 15FB are fifteen forward and backward."""
    return "1F" if net.inner_steps is None else f"{net.inner_steps}FB"


def adapt_macs(net: nn.Module, image_size: int, images: int, way: int, clip: int = 1) -> float | None:
    """Multiply-accumulates to adapt to `images` support images of `way` classes, in clips of `clip`.

    None for a head without a known formula. For many tasks call `LearnerMacs.of` once.
    """
    return LearnerMacs.of(net, image_size).macs(images, way, clip)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerMacs:
    """The multiply-accumulates of a learner's networks and of its FiLM generator, and its head."""

    encoder: int
    """Of the set encoder, for one image."""
    generator: int
    """Of the FiLM generator, for one task."""
    backbone: int
    """Of the backbone, for one image."""
    dim: int
    """The dimension of a feature."""
    head: Head
    steps: int | None
    """Passes forward and backward over the support set; None: one pass forward."""

    @classmethod
    def of(cls, net: nn.Module, image_size: int) -> LearnerMacs:
        """Count by passing one black image."""
        if not isinstance(net, MetaLearner):
            raise UsageError(f"the cost of a {type(net).__name__} is not known: needed a MetaLearner")
        return cls(
            encoder=network_macs(net.encoder, image_size) if net.encoder is not None else 0,
            generator=_generator_macs(net.generator),
            backbone=network_macs(net.backbone, image_size),
            dim=net.backbone.dim,
            head=net.head,
            steps=net.inner_steps,
        )

    def macs(self, images: int, way: int, clip: int = 1) -> float | None:
        """The multiply-accumulates to adapt to a support set, or None if the head's formula is not known.

        They are comparable with Table 1, so two of our learners do less: FineTuner without FiLM passes the
        support set once and not at each step, and our Mahalanobis head needs no inverse per class.
        """
        if type(self.head) not in HEAD_MACS:
            return None
        units = images // clip
        pooling = images * self.dim if clip > 1 else 0
        head = HEAD_MACS[type(self.head)](self.head, units, way, self.dim)
        if self.steps is not None:
            return self.steps * (BOTH_WAYS * (images * self.backbone + head) + pooling)
        return images * (self.encoder + self.backbone) + self.generator + pooling + head


@torch.no_grad()
def network_macs(network: nn.Module, image_size: int) -> int:
    """The multiply-accumulates of one image through a network that takes uint8 images."""
    device = next(network.parameters()).device
    image = torch.zeros(1, 3, image_size, image_size, dtype=torch.uint8, device=device)
    with evaluating(network), _count_layers(network) as counts:
        network(image)
    return sum(counts)


@contextmanager
def _count_layers(network: nn.Module) -> Iterator[list[int]]:
    """Collect the cost of each layer of a network, in the order of the calls."""
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        counts.append(_layer_macs(layer, inputs[0], output))

    layers = [layer for layer in network.modules() if isinstance(layer, COUNTED_LAYERS)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()


def _layer_macs(layer: nn.Module, images: Tensor, output: Tensor) -> int:
    if isinstance(layer, CONVOLUTION_LAYERS):
        window = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
        return output.numel() * (window + (layer.bias is not None))
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        window = math.prod(images.shape[-2:]) // math.prod(output.shape[-2:])
        return output.numel() * (window + 1)
    return 2 * images.numel()


def _generator_macs(generator: nn.Module | None) -> int:
    """Our generator multiplies with parameters and has no layers; linear layers of another one work once per task."""
    if generator is None:
        return 0
    if isinstance(generator, FilmGenerator):
        return generator.first.numel() + generator.last.numel()
    return _linear_weights(generator)


def _linear_weights(module: nn.Module) -> int:
    """The products of a module's linear layers, each called once."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def _mean_macs(units: int, way: int, dim: int) -> int:
    """To select the units (images or clips) of each class, and to average them."""
    return units * way + units * dim


def _euclidean_macs(_head: Head, units: int, way: int, dim: int) -> float:
    return _mean_macs(units, way, dim) + 3 * way * dim  # to double, to square, to change the sign


def _cosine_macs(_head: Head, units: int, way: int, dim: int) -> float:
    return _mean_macs(units, way, dim) + 2 * way * dim  # to square, to divide


def _linear_generator_macs(head: Head, units: int, way: int, dim: int) -> float:
    return _mean_macs(units, way, dim) + way * _linear_weights(head)


def _mahalanobis_macs(_head: Head, units: int, way: int, dim: int) -> float:
    """A covariance of all units, and a covariance and an inverse for each class, as the papers compute them."""
    covariances = 2 * (units * dim**2 + 2 * units * dim) + 1 + way  # each unit counts for all and its own
    inverse = dim**3 / 3 + dim**2 - 4 * dim / 3
    return _mean_macs(units, way, dim) + covariances + way * (1 + 2 * dim**2 + inverse)


def _discriminant_macs(_head: Head, units: int, way: int, dim: int) -> float:
    """One covariance, its Cholesky factor, and two triangular solves for each class; in the span of few units."""
    size = min(units, dim)
    there_and_back = 2 * way * units * dim if units < dim else 0
    return _mean_macs(units, way, dim) + units * dim * size + size**3 / 3 + 2 * way * size**2 + there_and_back


def _logistic_macs(_head: Head, units: int, way: int, dim: int) -> float:
    """The objective and its gradient, as often as L-BFGS asks for them in a usual task."""
    return LOGISTIC_EVALUATIONS * BOTH_WAYS * units * way * dim


def _linear_macs(_head: Head, units: int, way: int, dim: int) -> float:
    """The logits of all units, in one step."""
    return units * way * dim


HEAD_MACS: Final[Mapping[type[Head], Callable[[Head, int, int, int], float]]] = {
    EuclideanPrototypes: _euclidean_macs,
    CosinePrototypes: _cosine_macs,
    LinearGenerator: _linear_generator_macs,
    MahalanobisHead: _mahalanobis_macs,
    LinearHead: _linear_macs,
    LinearDiscriminant: _discriminant_macs,
    LogisticHead: _logistic_macs,
}
"""The formula of each head: a function of the head, support units, way and the features' dimension."""
