"""The stages of one task: values without a graph, and gradients sent back through the stages."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.base import Head, full_precision
from learners.labels import Labels
from learners.lite.draws import UnitDraw
from learners.lite.gradient_sums import GradientSums
from learners.networks import Backbone
from learners.task import ChunkedPass, Images, first_images
from pipeline.loader.uploads import upload

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

    def __init__(
        self,
        learner: StageNetworks,
        images: Images,
        labels: Labels,
        passage: ChunkedPass,
        *,
        keep: Collection[Stage] = (),
    ) -> None:
        """keep: stages whose one pass has a graph, so that no second one follows; all units are drawn there."""
        self._learner = learner
        self._images = images
        self._passage = passage
        self._keep = keep
        self._kept: dict[Stage, Tensor] = {}
        self._embedding: Tensor | None = None
        if learner.encoder is not None:
            embedding = self._first_pass("encoder", learner.encoder).mean(0)
            self._embedding = _leaf(embedding, wanted=learns(learner.encoder))
        self._generated = learner.film(self._embedding)
        self._film_leaf, self._film = _joined_leaf(self._generated)
        features = self._first_pass("backbone", learner.backbone, self._film)
        adapted = any(tensor.requires_grad for tensor in self._film)
        self._features = _leaf(features, wanted=adapted or learns(learner.backbone))
        with full_precision(features.device):
            self._fitted = learner.head.fit(self._features, labels)
        self._state = _leaves(self._fitted)
        self.device = features.device
        self._sums = GradientSums(chain(*(n.parameters() for n in (learner.backbone, learner.encoder) if n)))
        self.used: dict[Stage, int] = {}
        """The number of units recomputed with a graph, by stage."""

    def _first_pass(self, stage: Stage, network: nn.Module, *arguments: object) -> Tensor:
        """The vectors of all units, detached from their graph."""
        mixes = getattr(network, "mixes_images", False)  # then its statistics count the passes
        if mixes or stage not in self._keep:
            return self._passage.whole(network, self._images, *arguments)
        self._kept[stage] = self._passage.run(network, first_images(self._images), *arguments)
        return self._kept[stage].detach()

    def query(self, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
        """Back-propagate `share` times the summed loss of some queries; return the sum and the number correct.

        What it adds to the networks' gradients is in `.grad` after `descend` only.
        """
        made = self._passage.run(self._learner.backbone, images, self._film)
        loss, correct, gradient = self._score(made, labels, share, wanted=made.requires_grad)
        if gradient is not None:
            torch.autograd.backward(made, gradient)
            self._sums.fold()
        return loss, correct

    def look(self, images: Tensor, labels: Tensor, share: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """What `query` does, but for the backbone: its part of the gradient is returned, at the features."""
        with torch.no_grad():
            features = self._passage.run(self._learner.backbone, images, self._film)
        return self._score(features, labels, share, wanted=self._features.requires_grad)

    def replay_queries(self, images: Tensor, chosen: UnitDraw, gradient: Tensor) -> None:
        """Back-propagate the gradient at the features of the chosen queries, times their weights."""
        self._replay(self._learner.backbone, images, chosen, gradient, self._film)
        self._sums.settle()

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
            self._return("backbone", self._learner.backbone, choose, gradient, self._film)
        if self._film_leaf is not None and self._film_leaf.grad is not None:
            with full_precision(self.device):
                _send_parts(self._generated, self._film_leaf.grad)
        if self._embedding is not None and self._embedding.grad is not None:
            gradient = self._embedding.grad.expand(len(self._features), -1) / len(self._features)
            assert self._learner.encoder is not None
            self._return("encoder", self._learner.encoder, choose, gradient)
        self._sums.settle()

    def _return(
        self, stage: Stage, network: nn.Module, choose: Choose, gradient: Tensor, *arguments: object
    ) -> None:
        """Send the gradient at a stage's vectors back through it, for the chosen units."""
        if stage in self._kept:
            torch.autograd.backward(self._kept.pop(stage), gradient)
            self.used[stage] = len(gradient)
            return
        chosen = choose(stage, gradient)
        self._replay(network, self._images, chosen, gradient, *arguments)
        self.used[stage] = len(chosen.units)

    def _replay(
        self, network: nn.Module, images: Images, chosen: UnitDraw, gradient: Tensor, *arguments: object
    ) -> None:
        """Recompute the chosen units with a graph, and back-propagate each one's gradient times its weight."""
        drawn = torch.from_numpy(chosen.units), torch.from_numpy(chosen.weights).to(gradient.dtype)
        units, weights = upload(*drawn, device=gradient.device)
        weighted = weights[:, None] * gradient[units]
        begin = 0
        for part in self._passage.parts(images, units):
            vectors = self._passage.run(network, part, *arguments)
            torch.autograd.backward(vectors, weighted[begin : begin + len(vectors)])
            self._sums.fold()
            begin += len(vectors)


def _leaf(tensor: Tensor, *, wanted: bool) -> Tensor:
    return tensor.detach().requires_grad_(wanted)


def _joined_leaf(tensors: Sequence[Tensor]) -> tuple[Tensor | None, tuple[Tensor, ...]]:
    """One leaf with the values of all, and its parts in their shapes: each pass adds to one gradient, not to all."""
    if not tensors:
        return None, ()
    values = torch.cat([tensor.detach().flatten() for tensor in tensors])
    leaf = _leaf(values, wanted=any(tensor.requires_grad for tensor in tensors))
    parts = zip(_parts(leaf, tensors), tensors, strict=True)
    return leaf, tuple(part.view_as(tensor) for part, tensor in parts)


def _send_parts(made: Sequence[Tensor], gradient: Tensor) -> None:
    """Back-propagate the gradient of a joined leaf into the graph that computed its parts."""
    pairs = zip(made, _parts(gradient, made), strict=True)
    wanted = [(one, part.view_as(one)) for one, part in pairs if one.requires_grad]
    outputs, gradients = zip(*wanted, strict=True)
    torch.autograd.backward(outputs, gradients)


def _parts(joined: Tensor, like: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.split(joined, [tensor.numel() for tensor in like])


def _leaves(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(_leaf(tensor, wanted=tensor.requires_grad) for tensor in tensors)


def _send(made: Sequence[Tensor], leaves: Sequence[Tensor]) -> None:
    """Back-propagate the gradients of leaves into the graph that computed their values."""
    pairs = [(one, leaf.grad) for one, leaf in zip(made, leaves, strict=True) if leaf.grad is not None]
    if pairs:
        outputs, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(outputs, gradients)


def gradient_sizes(gradient: Tensor, fetch: Callable[[Tensor], Tensor] = Tensor.cpu) -> NDArray[np.float64]:
    """The length of each unit's gradient, by which `neyman` draws."""
    sizes: NDArray[np.float64] = fetch(gradient.norm(dim=1).double()).numpy()
    return sizes


def learns(module: nn.Module) -> bool:
    """Whether some parameter of a module is trained."""
    return any(parameter.requires_grad for parameter in module.parameters())
