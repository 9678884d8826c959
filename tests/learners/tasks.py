"""Small tasks, small networks in float64, and a generator whose every outcome can be gone through."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar, cast
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.discriminant import LinearDiscriminant
from learners.learner import StagedLearner
from learners.lite import draws
from learners.lite.draws import systematic
from learners.lite.engine import Lite, Outcome, backward
from learners.methods.cnaps import CNAPs
from learners.methods.protonets import ProtoNets
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import Backbone
from learners.networks.set_encoder import SetEncoder
from learners.task import Task
from pipeline.pixels import SYMMETRIC

Found = TypeVar("Found")
SIZE = 32  # pixels: the least that the set encoder takes
DIM = 5


def backbone(*, film: bool = False, dim: int = DIM, seed: int = 0) -> Backbone:
    """Two convolutions with GroupNorm, each image by itself, with nothing that has a corner."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 5, stride=4),
        nn.GroupNorm(2, 4),
        nn.Tanh(),
        nn.Conv2d(4, dim, 3),
        nn.GroupNorm(1, dim),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    rule = r"\d" if film else False
    return Backbone(net, name="toy", dim=dim, normalisation=SYMMETRIC, film=rule).double()


def loud(learner: StagedLearner) -> StagedLearner:
    """With regularisers large enough for FiLM to matter."""
    if learner.generator is not None:
        torch.nn.init.uniform_(learner.generator.get_parameter("regularisers"), 0.3, 0.6)
    return learner.double()


def protonets(dim: int = DIM) -> StagedLearner:
    return ProtoNets(backbone(dim=dim))


def cosine(dim: int = DIM) -> StagedLearner:
    return ProtoNets(backbone(dim=dim), metric="cosine")


def lda(dim: int = DIM) -> StagedLearner:
    return StagedLearner(backbone(dim=dim), LinearDiscriminant()).double()


def cnaps(dim: int = DIM) -> StagedLearner:
    torch.manual_seed(1)
    return loud(CNAPs(backbone(film=True, dim=dim), encoder=SetEncoder(8)))


def simple_cnaps(dim: int = DIM) -> StagedLearner:
    torch.manual_seed(1)
    return loud(SimpleCNAPs(backbone(film=True, dim=dim), encoder=SetEncoder(8)))


LEARNERS: dict[str, Callable[[], StagedLearner]] = {
    "protonets": protonets,
    "cosine": cosine,
    "lda": lda,
    "cnaps": cnaps,
    "simple_cnaps": simple_cnaps,
}


def pixels(labels: Sequence[int] | Tensor, seed: int, size: int = SIZE) -> Tensor:
    """One image for each label: noise over a pattern that all images of a class have."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for label in torch.as_tensor(labels).tolist():
        pattern = torch.Generator().manual_seed(label)
        coarse = torch.rand((3, 4, 4), generator=pattern)
        fine = functional.interpolate(coarse[None], size=size)[0]
        noise = torch.rand((3, size, size), generator=generator)
        images.append((fine * 120 + noise * 135).to(torch.uint8))
    return torch.stack(images).contiguous(memory_format=torch.channels_last)


def shuffled(shots: Sequence[int], seed: int = 0) -> Tensor:
    labels = torch.arange(len(shots)).repeat_interleave(torch.tensor(shots))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def task(
    shots: Sequence[int],
    *,
    queries: int = 4,
    batches: int = 1,
    clip: int = 1,
    size: int = SIZE,
    seed: int = 0,
) -> Task:
    """So many support units of each class; queries of all classes in turn."""
    labels = shuffled(shots, seed).repeat_interleave(clip)
    asked = (torch.arange(queries) % len(shots)).repeat_interleave(clip)
    images = pixels(asked, seed + 1, size)
    size_of_batch = -(-queries // batches) * clip
    parts = zip(torch.split(images, size_of_batch), torch.split(asked, size_of_batch), strict=True)
    return Task(
        images=pixels(labels, seed + 2, size),
        labels=labels,
        way=len(shots),
        queries=list(parts),
        query_count=queries * clip,
        clip=clip,
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def gathered(learner: StagedLearner) -> Tensor:
    """All gradients as one vector; the learner has none afterwards."""
    found = []
    for parameter in learner.parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        found.append(gradient.flatten())
        parameter.grad = None
    return torch.cat(found)


def staged(
    learner: StagedLearner, asked: Task, settings: Lite, chance: np.random.Generator | None = None
) -> tuple[Tensor, Outcome]:
    """The gradient that the engine finds."""
    outcome = backward(learner, asked, settings, chance or rng())
    return gathered(learner), outcome


def whole(learner: StagedLearner, asked: Task, penalty: float = 0.0) -> tuple[Tensor, Tensor]:
    """The gradient of one graph through everything, and the loss."""
    images, labels = asked.joined_queries()
    logits = learner(asked.support, asked.labels, images, asked.clip)
    loss = functional.cross_entropy(logits, labels[:: asked.clip])
    extra = learner.penalty()
    total = loss if extra is None else loss + penalty * extra
    torch.autograd.backward(total)
    return gathered(learner), loss.detach()


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative to the length of what is wanted."""
    return float(((found - wanted).norm() / wanted.norm()).detach())


class Every:
    """In place of a random generator: `all` goes through every outcome of its draws, with its chance."""

    def __init__(self) -> None:
        self._now: list[int] = []
        self._sizes: list[int] = []
        self._at = 0
        self._chance = 1.0

    def all(self, run: Callable[[np.random.Generator], Found]) -> list[tuple[Found, float]]:
        """What each outcome leads to, and how likely it is."""
        found = []
        with patch.object(draws, "systematic", self._systematic):
            while True:
                self._at, self._chance = 0, 1.0
                result = run(cast(np.random.Generator, self))
                found.append((result, self._chance))
                while self._now and self._now[-1] == self._sizes[-1] - 1:
                    self._now.pop()
                    self._sizes.pop()
                if not self._now:
                    return found
                self._now[-1] += 1

    def _pick(self, chances: Sequence[float]) -> int:
        if self._at == len(self._now):
            self._now.append(0)
            self._sizes.append(len(chances))
        picked = self._now[self._at]
        self._at += 1
        self._chance *= chances[picked]
        return picked

    def choice(self, total: int, size: int, *, replace: bool, shuffle: bool) -> np.ndarray:
        assert not replace
        assert not shuffle  # the order means nothing, so subsets are all outcomes
        subsets = list(itertools.combinations(range(total), size))
        return np.array(subsets[self._pick([1 / len(subsets)] * len(subsets))], np.int64)

    def permutation(self, total: int) -> np.ndarray:
        orders = list(itertools.permutations(range(total)))
        return np.array(orders[self._pick([1 / len(orders)] * len(orders))], np.int64)

    def random(self) -> float:
        return 0.0  # where systematic places start is decided there, once their chances are known

    def _systematic(self, chances: np.ndarray, _start: float) -> np.ndarray:
        """The same places for all starts between two edges."""
        edges = starts(chances)
        picked = self._pick(np.diff(edges).tolist())
        return systematic(chances, float(edges[picked] + edges[picked + 1]) / 2)


def starts(chances: np.ndarray) -> np.ndarray:
    """0, 1, and where between them the outcome of `systematic` changes."""
    rest = np.cumsum(chances[chances < 1])
    return np.unique(np.concatenate([[0, 1], rest - np.floor(rest)]))


def expected(learner: StagedLearner, asked: Task, settings: Lite) -> tuple[Tensor, int]:
    """The mean gradient over all outcomes of the draws, and how many there are."""
    found = Every().all(lambda chance: staged(learner, asked, settings, chance)[0])
    return torch.stack([gradient * chance for gradient, chance in found]).sum(0), len(found)
