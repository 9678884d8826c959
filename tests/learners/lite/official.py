"""The papers' own training loops, written from their description in plain arithmetic: the reference of tests.

Nothing here is shared with `learners.lite`: networks are evaluated from their parameters, norms, FiLM, prototypes
and inverses are written out, and H is put before the rest of the support set, as the official codes have it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.learner import StagedLearner
from learners.task import Task
from pipeline.pixels import PixelScaling, normalise
from tests.learners.heads.test_mahalanobis import by_inverses

Logits: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From support features, their labels and query features."""
EPSILON = 1e-5


def nearest_means(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    means = torch.stack([features[labels == label].mean(0) for label in range(int(labels.max()) + 1)])
    return -(queries[:, None] - means).square().sum(2)


def mahalanobis(features: Tensor, labels: Tensor, queries: Tensor) -> Tensor:
    return by_inverses(features, labels, queries, "official")


@dataclass(frozen=True)
class OwnNetworks:
    """A learner's networks, evaluated by formulas that are written out here."""

    learner: StagedLearner
    logits: Logits

    def embeddings(self, clips: Tensor) -> Tensor:
        encoder = self.learner.encoder
        assert encoder is not None
        return self._means(encoder, clips, ())

    def features(self, clips: Tensor, film: Sequence[Tensor]) -> Tensor:
        return self._means(self.learner.backbone, clips, film)

    def film(self, embedding: Tensor) -> list[Tensor]:
        values = dict(self.learner.named_parameters())
        made, begin = [], 0
        for place, channels in enumerate(self.learner.backbone.film_channels):
            for kind in (0, 1):
                at, rows = 2 * place + kind, slice(begin, begin + channels)
                hidden = values["generator.first"][at] @ embedding + values["generator.first_bias"][at]
                hidden = (hidden - hidden.mean()) / (hidden.var(unbiased=False) + EPSILON).sqrt()
                hidden = (hidden * values["generator.scale"][at] + values["generator.shift"][at]).relu()
                change = values["generator.last"][rows] @ hidden + values["generator.last_bias"][rows]
                change = change * values["generator.regularisers"][rows]
                made.append(change + (1 - kind))
                begin += channels
        return made

    def penalty(self) -> Tensor:
        if self.learner.generator is None:
            return torch.zeros(())
        return (self.learner.generator.get_parameter("regularisers") ** 2).sum()

    def _means(self, network: nn.Module, clips: Tensor, film: Sequence[Tensor]) -> Tensor:
        """The mean over each clip's frames; frames of all clips are one batch."""
        scaling = network.scaling
        assert isinstance(scaling, PixelScaling)
        pixels = normalise(clips.flatten(0, 1), scaling.normalisation, torch.float64)
        return _forward(network, pixels, film).reshape(len(clips), clips.shape[1], -1).mean(1)


def _forward(network: nn.Module, x: Tensor, film: Sequence[Tensor]) -> Tensor:
    pairs = iter(zip(film[::2], film[1::2], strict=True))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            x = functional.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)
        elif isinstance(layer, nn.GroupNorm | nn.BatchNorm2d):
            x = _normed(layer, x) * _wide(layer.weight) + _wide(layer.bias)
            if film:
                gamma, beta = next(pairs)
                x = _wide(gamma) * x + _wide(beta)
        elif isinstance(layer, nn.Tanh | nn.SiLU | nn.ReLU | nn.MaxPool2d):
            x = layer(x)
    return x.mean((2, 3))


def _normed(layer: nn.GroupNorm | nn.BatchNorm2d, x: Tensor) -> Tensor:
    if isinstance(layer, nn.GroupNorm):
        parts = x.reshape(len(x), layer.num_groups, -1)
        mean, variance = parts.mean(2, keepdim=True), parts.var(2, keepdim=True, unbiased=False)
        return ((parts - mean) / (variance + EPSILON).sqrt()).reshape(x.shape)
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (variance + EPSILON).sqrt()


def _wide(values: Tensor) -> Tensor:
    return values.reshape(1, -1, 1, 1)


@dataclass(frozen=True)
class OfficialTask:
    """A task as the loops go through it: clips, n x frames x 3 x S x S, with a label each."""

    support: Tensor
    labels: Tensor
    queries: Tensor
    answers: Tensor

    @classmethod
    def of(cls, task: Task) -> OfficialTask:
        images, answers = task.joined_queries()
        clips = [part.reshape(-1, task.clip, *part.shape[1:]) for part in (task.support, images)]
        return cls(clips[0], task.labels[:: task.clip], clips[1], answers[:: task.clip])


@dataclass(frozen=True)
class OfficialLoop:
    """Settings of both loops; `size` is the number of images or clips in a batch."""

    h: int
    size: int
    penalty: float
    tasks_per_step: int = 1

    def lite(self, own: OwnNetworks, task: OfficialTask, rng: np.random.Generator) -> Tensor:
        """Back-propagate a task as the VTAB+MD code does; return the mean loss of its queries."""
        count, total = len(task.labels), torch.zeros(())
        cached_embeddings: Tensor | None = None
        cached_features: Tensor | None = None
        for begin, end in self._joined(len(task.answers)):
            h, rest = self._split(count, rng)
            film: list[Tensor] = []
            if own.learner.encoder is not None:
                if cached_embeddings is None:
                    with torch.no_grad():
                        parts = [own.embeddings(task.support[b:e]) for b, e in self._joined(count)]
                        cached_embeddings = torch.cat(parts)
                mixed = [cached_embeddings[rest]]
                if len(h):
                    mixed.insert(0, own.embeddings(task.support[h]))
                film = own.film(torch.cat(mixed).mean(0))
            if cached_features is None:
                with torch.no_grad():
                    parts = [own.features(task.support[b:e], film) for b, e in self._joined(count)]
                    cached_features = torch.cat(parts)
            mixed = [cached_features[rest]]
            if len(h):
                mixed.insert(0, own.features(task.support[h], film))
            labels = task.labels[torch.cat([h, rest])]
            logits = own.logits(torch.cat(mixed), labels, own.features(task.queries[begin:end], film))
            loss = functional.cross_entropy(logits, task.answers[begin:end])
            (loss / self.tasks_per_step + self.penalty * own.penalty()).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach() * (end - begin)
        return total / len(task.answers)

    def orbit(self, own: OwnNetworks, task: OfficialTask, rng: np.random.Generator) -> Tensor:
        """Back-propagate a task as ORBIT's code of 2021 does, but for the frames that its cache mixes up."""
        count, total = len(task.labels), torch.zeros(())
        film: list[Tensor] = []
        with torch.no_grad():
            if own.learner.encoder is not None:
                cached_embeddings = torch.cat(
                    [own.embeddings(part) for part in torch.split(task.support, self.size)]
                )
                film = own.film(cached_embeddings.mean(0))
            cached_features = torch.cat(
                [own.features(part, film) for part in torch.split(task.support, self.size)]
            )
        for queries, answers in zip(
            torch.split(task.queries, self.size), torch.split(task.answers, self.size), strict=True
        ):
            h, rest = self._split(count, rng)
            h = h.sort().values[torch.from_numpy(rng.permutation(len(h)))]
            parts = torch.split(task.support[h], self.size)
            if own.learner.encoder is not None:
                mixed = [own.embeddings(part) for part in parts]
                film = own.film(torch.cat([*mixed, cached_embeddings[rest]]).mean(0))
            features = torch.cat([*(own.features(part, film) for part in parts), cached_features[rest]])
            labels = task.labels[torch.cat([h, rest])]
            loss = functional.cross_entropy(
                own.logits(features, labels, own.features(queries, film)), answers
            )
            scaled = count / (self.h * self.tasks_per_step) * loss
            (scaled + self.penalty * own.penalty()).backward()  # type: ignore[no-untyped-call]
            total = total + loss.detach() * len(answers)
        return total / len(task.answers)

    def _joined(self, count: int) -> list[tuple[int, int]]:
        """Where batches begin and end; one is longer if a single image or query would be left."""
        batches = -(-count // self.size)
        if batches > 1 and count % self.size == 1:
            batches -= 1
        ends = [(batch + 1) * self.size for batch in range(batches)]
        ends[-1] = count
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def _split(self, count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """H, and the rest."""
        h = rng.choice(count, min(self.h, count), replace=False, shuffle=False)
        return torch.from_numpy(h), torch.from_numpy(np.setdiff1d(np.arange(count), h))
