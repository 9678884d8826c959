"""The error of an estimated gradient, for one task: its bias and its spread, over many draws.

A learner with one stage has a gradient that is linear in the draw's weights: that of the queries' own path
plus one vector for each support image, times its weight. All of them are computed once, and then a draw
costs no more than its random numbers. Whatever else there is (a learner with a set encoder, the
subsampled task) goes through the engine, draw by draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from learners.labels import Labels
from learners.learner import Passage, StagedLearner, Task
from learners.lite.draws import Draw, draw, unweighted
from learners.lite.engine import FEW, Lite, Sampler, backward
from learners.lite.stages import Stage, Support
from pipeline.episodes import LITE_DRAW, generator

BLOCK: Final = 1 << 18  # parameters whose products are summed at a time, in float64


class Errors(NamedTuple):
    """Of one sampler and one |H| on one task, relative to the exact gradient's squared length."""

    bias2: float
    """Squared length of the mean error, estimated without bias: it can be below zero."""
    mse: float
    """Mean squared length of the error."""
    draws: int


def settings_of(sampler: Sampler, h: int, task: Task) -> Lite:
    """All queries in one batch, so that the papers' samplers draw one H; no penalty, which has no draws."""
    return Lite(h=h, sampler=sampler, chunk=max(Lite().chunk, task.query_count), penalty=0.0)


def engine_gradient(
    learner: StagedLearner, task: Task, settings: Lite, rng: np.random.Generator
) -> Tensor:
    """What the engine leaves on the parameters that learn, as one vector."""
    learner.zero_grad()
    with warnings.catch_warnings():  # that H is small is what a study is about
        warnings.filterwarnings("ignore", FEW.format(h=settings.h), UserWarning)
        backward(learner, task, settings, rng)
    return _gathered(learner)


def active(learner: StagedLearner, task: Task) -> float:
    """How many queries the gradient comes from, as a share: near 0 where the softmax is saturated.

    (sum r)^2 / sum r^2, where r is the length of the loss's gradient by a query's logits.
    """
    classify = learner.adapt(task.images, task.labels, task.way)
    lengths = []
    for images, answers in task.queries:
        chances = classify(images).double()
        chances[torch.arange(len(answers)), answers] -= 1
        lengths.append(chances.norm(dim=1))
    r = torch.cat(lengths)
    return float(r.sum().square() / r.square().sum().clamp_min(torch.finfo(r.dtype).tiny)) / len(r)


class Study:
    """A learner's exact gradient on one task, and how far estimates of it are off."""

    def __init__(self, learner: StagedLearner, task: Task, number: int, seed: int) -> None:
        """`number`, `seed`: of the episode; they decide the draws."""
        self._learner, self._task = learner, task
        self._seed, self._number = seed, number
        exact = settings_of("exact", 0, task)
        self.exact = engine_gradient(learner, task, exact, self.rng())
        self.norm2 = float(_gram(self.exact[None]))
        self.active = active(learner, task)
        """The share of queries that carry gradient."""
        self.linear: Linear | None = None
        if learner.encoder is None:
            self.linear = Linear.of(learner, task, exact.chunk)

    def rng(self) -> np.random.Generator:
        """Random numbers of this task; each sampler begins with the same."""
        return generator(self._seed, self._number, LITE_DRAW)

    def is_linear(self, sampler: Sampler) -> bool:
        """Whether a draw costs no pass through the engine."""
        return self.linear is not None and sampler != "subsample"

    def errors(self, sampler: Sampler, h: int, draws: int) -> Errors:
        """Over so many draws; one where there is nothing to draw."""
        settings, rng = settings_of(sampler, h, self._task), self.rng()
        count = 1 if sampler in ("none", "exact") else draws
        if self.linear is not None and self.is_linear(sampler):
            rows = [self.linear.coefficients(settings, rng) for _ in range(count)]
            away = torch.from_numpy(np.stack(rows) - 1)
            products = away @ self.linear.gram @ away.T
        else:
            found = [self._from_engine(settings, rng) for _ in range(count)]
            products = _gram(torch.stack(found) - self.exact)
        return _errors(products / self.norm2)

    def disagreement(self, sampler: Sampler, h: int) -> float:
        """Distance between one draw's gradient by the engine and by the sum, relative to the exact one."""
        assert self.linear is not None
        settings = settings_of(sampler, h, self._task)
        weights = torch.from_numpy(self.linear.coefficients(settings, self.rng())).float()
        summed = weights @ self.linear.rows.float()
        return float((summed - self._from_engine(settings, self.rng())).norm() / self.norm2**0.5)

    def _from_engine(self, settings: Lite, rng: np.random.Generator) -> Tensor:
        return engine_gradient(self._learner, self._task, settings, rng)


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """The parts that a gradient is a weighted sum of."""

    rows: Tensor
    """1 + N gradients: of the queries' own path, then of each support image."""
    gram: Tensor
    """Products of the rows, float64."""
    labels: Labels
    sizes: np.ndarray
    """The norm of the loss's gradient by each support feature."""

    @classmethod
    def of(cls, learner: StagedLearner, task: Task, chunk: int) -> Linear:
        """Back-propagate the queries once, then each support image alone. Holds 1 + N gradients."""
        labels, passage = Labels.checked(task.labels, task.way), Passage(chunk=chunk)
        support = Support(learner, task.images, labels, passage)
        left: dict[Stage, Tensor] = {}

        def none(stage: Stage, gradient: Tensor) -> Draw:
            left[stage] = gradient
            return draw("none", labels, 0, np.random.default_rng(0))

        learner.zero_grad()
        for images, answers in task.queries:
            support.query(images, answers, 1 / task.query_count)
        support.descend(none)
        rows = torch.stack([_gathered(learner), *_alone(learner, task, passage, left["backbone"])])
        sizes = left["backbone"].norm(dim=1).double().cpu().numpy()
        return cls(rows, _gram(rows), labels, sizes)

    def coefficients(self, settings: Lite, rng: np.random.Generator) -> np.ndarray:
        """One for each row, of one draw."""
        if settings.paper:
            chosen = unweighted(self.labels, settings.h, rng)
        else:
            scheme = settings.scheme("backbone")
            chosen = draw(scheme, self.labels, settings.h, rng, self.sizes)
        values = np.zeros(1 + len(self.labels))
        values[0] = 1
        values[1 + chosen.units] = chosen.weights
        if settings.sampler == "paper-orbit":
            values *= len(self.labels) / settings.h
        return values


def _alone(
    learner: StagedLearner, task: Task, passage: Passage, gradient: Tensor
) -> Iterator[Tensor]:
    """What each support image adds to the gradient."""
    for image, arrived in zip(task.images, gradient, strict=True):
        made = passage.run(learner.backbone, image[None])
        torch.autograd.backward(made, arrived[None])
        yield _gathered(learner)


def _gathered(learner: StagedLearner) -> Tensor:
    """The gradients as one vector; the parameters have none afterwards."""
    learning = [p for p in learner.parameters() if p.requires_grad]
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    vector = torch.cat([gradient.flatten() for gradient in found])
    learner.zero_grad()
    return vector


def _gram(rows: Tensor) -> Tensor:
    """The products of rows with one another, in float64 on the CPU."""
    total = torch.zeros((len(rows), len(rows)), dtype=torch.float64)
    for block in torch.split(rows, BLOCK, dim=1):
        wide = block.double()
        total += (wide @ wide.T).cpu()
    return total


def _errors(products: Tensor) -> Errors:
    """From the products of all draws' errors: those of different draws average to the bias's."""
    draws = len(products)
    own = float(products.trace())
    bias2 = own if draws == 1 else (float(products.sum()) - own) / (draws * (draws - 1))
    return Errors(bias2, own / draws, draws)
