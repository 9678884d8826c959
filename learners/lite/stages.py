"""The stages of one task: values without a graph, and gradients sent back through the stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.base import Head, full_precision
from learners.labels import Labels
from learners.lite.draws import UnitDraw
from learners.networks import Backbone
from learners.task import ChunkedPass

Stage: TypeAlias = Literal["backbone", "encoder"]
Choose: TypeAlias = Callable[[Stage, Tensor], UnitDraw]
"""From a stage and the N x d gradient at each support unit's vector, the units to recompute with a graph."""


class StageNetworks(Protocol):
    """The networks of a staged learner (`learners.learner.StagedLearner`)."""

    backbone: Backbone
    head: Head
    encoder: nn.Module | None

    def film(self, embedding: Tensor | None) -> tuple[Tensor, ...]: ...

    def penalty(self) -> Tensor | None: ...


class SupportStages:
    """Each stage's values for the support set; `query` accumulates gradients on them, `descend` sends them back.

    Each value is a leaf: detached from the stage that computed it, and requiring grad if something before it learns.
    """

    def __init__(self, learner: StageNetworks, images: Tensor, labels: Labels, passage: ChunkedPass) -> None:
        self._learner = learner
        self._images = images
        self._passage = passage
        self._embedding: Tensor | None = None
        if learner.encoder is not None:
            embedding = passage.whole(learner.encoder, images).mean(0)
            self._embedding = _leaf(embedding, wanted=learns(learner.encoder))
        self._generated = learner.film(self._embedding)
        self._film = _leaves(self._generated)
        features = passage.whole(learner.backbone, images, self._film)
        adapted = any(tensor.requires_grad for tensor in self._film)
        self._features = _leaf(features, wanted=adapted or learns(learner.backbone))
        with full_precision(features.device):
            self._fitted = learner.head.fit(self._features, labels)
        self._state = _leaves(self._fitted)
        self.device = features.device
        self.used: dict[Stage, int] = {}
        """The number of units recomputed with a graph, by stage."""

    def query(self, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Back-propagate `share` times the summed loss of some queries; return the sum and the number correct."""
        made = self._passage.run(self._learner.backbone, images, self._film)
        loss, correct, gradient = self._score(made, labels, share, wanted=made.requires_grad)
        if gradient is not None:
            torch.autograd.backward(made, gradient)
        return loss, correct

    def look(self, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `query` does, but for the backbone: its part of the gradient is returned, at the features."""
        with torch.no_grad():
            features = self._passage.run(self._learner.backbone, images, self._film)
        return self._score(features, labels, share, wanted=self._features.requires_grad)

    def replay_queries(self, images: Tensor, chosen: UnitDraw, gradient: Tensor) -> None:
        """Back-propagate the gradient at the features of the chosen queries, times their weights."""
        self._replay(self._learner.backbone, images, chosen, gradient, self._film)

    def _score(
        self, made: Tensor, labels: Tensor, share: float, *, wanted: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Summed loss, number correct, and the gradient at the features.

        The head has a backward pass of its own, so that all of it runs in full precision.
        """
        features = _leaf(made, wanted=wanted)
        with full_precision(self.device):
            logits = self._learner.head.logits(self._state, features)
            loss = functional.cross_entropy(logits, labels, reduction="sum")
            if loss.requires_grad:
                torch.autograd.backward(loss * share)
        return loss.detach(), (logits.detach().argmax(1) == labels).sum(), features.grad

    def descend(self, choose: Choose) -> None:
        """Send the accumulated gradients back through head, backbone, generator and encoder; once."""
        with full_precision(self.device):
            _send(self._fitted, self._state)
        if (gradient := self._features.grad) is not None:
            chosen = choose("backbone", gradient)
            self._replay(self._learner.backbone, self._images, chosen, gradient, self._film)
            self.used["backbone"] = len(chosen.units)
        _send(self._generated, self._film)
        if self._embedding is not None and self._embedding.grad is not None:
            gradient = self._embedding.grad.expand(len(self._features), -1) / len(self._features)
            assert self._learner.encoder is not None
            chosen = choose("encoder", gradient)
            self._replay(self._learner.encoder, self._images, chosen, gradient)
            self.used["encoder"] = len(chosen.units)

    def _replay(
        self, network: nn.Module, images: Tensor, chosen: UnitDraw, gradient: Tensor, *arguments: object
    ) -> None:
        """Recompute the chosen units with a graph, and back-propagate each one's gradient times its weight."""
        units = _here(chosen.units, gradient.device)
        weights = _here(chosen.weights, gradient.device).to(gradient.dtype)
        weighted = weights[:, None] * gradient[units]
        begin = 0
        for part in self._passage.parts(images, units):
            vectors = self._passage.run(network, part, *arguments)
            torch.autograd.backward(vectors, weighted[begin : begin + len(vectors)])
            begin += len(vectors)


def _leaf(tensor: Tensor, *, wanted: bool) -> Tensor:
    return tensor.detach().requires_grad_(wanted)


def _leaves(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(_leaf(tensor, wanted=tensor.requires_grad) for tensor in tensors)


def _send(made: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
    """Back-propagate the gradients of leaves into the graph that computed their values."""
    pairs = [(one, leaf.grad) for one, leaf in zip(made, leaves, strict=True) if leaf.grad is not None]
    if pairs:
        outputs, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(outputs, gradients)


def gradient_sizes(gradient: Tensor) -> NDArray[np.float64]:
    """The length of each unit's gradient, by which `neyman` draws."""
    sizes: NDArray[np.float64] = gradient.norm(dim=1).double().cpu().numpy()
    return sizes


def learns(module: nn.Module) -> bool:
    """Whether some parameter of a module is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())


def _here(values: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(values).to(device)
