"""Measure the error of a task's estimated gradient over many draws: its bias and its spread.

Without a set encoder the gradient is linear in the weights of a draw: the gradient through the queries, plus
one vector for each support image times its weight. These vectors are computed once, and then a draw costs no
more than its random numbers. All other cases (a learner with a set encoder, the subsampled task) go through
the engine, draw by draw.
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
from learners.learner import StagedLearner
from learners.lite.draws import SupportDraw, draw_support, unweighted
from learners.lite.engine import FEW_IN_H, Lite, SamplerName, backward
from learners.lite.stages import Stage, SupportStages
from learners.task import ChunkedPass, Task
from pipeline.episodes import LITE_DRAW, generator

PARAMETER_BLOCK: Final = 1 << 18  # parameters whose products are summed at a time, in float64


class GradientErrors(NamedTuple):
    """Errors of one sampler at one |H| on one task, relative to the exact gradient's squared length."""

    bias2: float
    """Squared length of the mean error, estimated without bias: it can be below zero."""
    mse: float
    """Mean squared length of the error."""
    draws: int


def lite_settings(sampler: SamplerName, h: int, task: Task) -> Lite:
    """Settings with all queries in one batch, so that the papers' samplers draw one H.

    The penalty is left out: it does not depend on the draw.
    """
    return Lite(h=h, sampler=sampler, chunk=max(Lite().chunk, task.query_count), penalty=0.0)


def engine_gradient(learner: StagedLearner, task: Task, settings: Lite, rng: np.random.Generator) -> Tensor:
    """The engine's gradient of the trainable parameters, as one vector."""
    learner.zero_grad()
    with warnings.catch_warnings():  # a study has a small H on purpose
        warnings.filterwarnings("ignore", FEW_IN_H.format(h=settings.h), UserWarning)
        backward(learner, task, settings, rng)
    return _take_gradient(learner)


def active_share(learner: StagedLearner, task: Task) -> float:
    """The share of queries that the gradient comes from: near 0 where the softmax is saturated.

    (sum r)^2 / sum r^2, where r is the length of the loss's gradient by a query's logits, is their number.
    """
    classify = learner.adapt(task.images, task.labels, task.way)
    lengths = []
    for images, answers in task.queries:
        difference = classify(images).double()
        difference[torch.arange(len(answers)), answers] -= 1
        lengths.append(difference.norm(dim=1))
    r = torch.cat(lengths)
    return float(r.sum().square() / r.square().sum().clamp_min(torch.finfo(r.dtype).tiny)) / len(r)


class GradientStudy:
    """A learner's exact gradient on one task, and how far estimates of it are off."""

    def __init__(self, learner: StagedLearner, task: Task, number: int, seed: int) -> None:
        """`number` and `seed` are the episode's; they decide the draws."""
        self._learner, self._task = learner, task
        self._seed, self._number = seed, number
        exact = lite_settings("exact", 0, task)
        self.exact = engine_gradient(learner, task, exact, self.rng())
        self.norm2 = float(_gram_matrix(self.exact[None]))
        self.active = active_share(learner, task)
        """The share of queries that carry gradient."""
        self.linear: LinearGradient | None = None
        if learner.encoder is None:
            self.linear = LinearGradient.of(learner, task, exact.chunk)

    def rng(self) -> np.random.Generator:
        """Random numbers of this task; every sampler starts with the same."""
        return generator(self._seed, self._number, LITE_DRAW)

    def is_linear(self, sampler: SamplerName) -> bool:
        """Whether a draw costs no pass through the engine."""
        return self.linear is not None and sampler != "subsample"

    def errors(self, sampler: SamplerName, h: int, draws: int) -> GradientErrors:
        """Errors over so many draws, or over one where nothing is random."""
        settings, rng = lite_settings(sampler, h, self._task), self.rng()
        count = 1 if sampler in ("none", "exact") else draws
        if self.linear is not None and self.is_linear(sampler):
            rows = [self.linear.coefficients(settings, rng) for _ in range(count)]
            differences = torch.from_numpy(np.stack(rows) - 1)
            products = differences @ self.linear.gram @ differences.T
        else:
            estimates = [self._from_engine(settings, rng) for _ in range(count)]
            products = _gram_matrix(torch.stack(estimates) - self.exact)
        return _errors_from_products(products / self.norm2)

    def disagreement(self, sampler: SamplerName, h: int) -> float:
        """Distance between one draw's gradient by the engine and by the sum, relative to the exact one."""
        assert self.linear is not None
        settings = lite_settings(sampler, h, self._task)
        weights = torch.from_numpy(self.linear.coefficients(settings, self.rng())).float()
        summed = weights @ self.linear.rows.float()
        return float((summed - self._from_engine(settings, self.rng())).norm() / self.norm2**0.5)

    def _from_engine(self, settings: Lite, rng: np.random.Generator) -> Tensor:
        return engine_gradient(self._learner, self._task, settings, rng)


@dataclass(frozen=True, slots=True, eq=False)
class LinearGradient:
    """The vectors of which a gradient is a weighted sum."""

    rows: Tensor
    """1 + N gradients: through the queries, then through each support image."""
    gram: Tensor
    """Products of the rows, float64."""
    labels: Labels
    sizes: np.ndarray
    """The norm of the loss's gradient by each support feature."""

    @classmethod
    def of(cls, learner: StagedLearner, task: Task, chunk: int) -> LinearGradient:
        """Back-propagate the queries once, then each support image alone. Holds 1 + N gradients."""
        labels, passage = Labels.checked(task.labels, task.way), ChunkedPass(chunk=chunk)
        support = SupportStages(learner, task.images, labels, passage)
        gradients: dict[Stage, Tensor] = {}

        def draw_none(stage: Stage, gradient: Tensor) -> SupportDraw:
            gradients[stage] = gradient
            return draw_support("none", labels, 0, np.random.default_rng(0))

        learner.zero_grad()
        for images, answers in task.queries:
            support.query(images, answers, 1 / task.query_count)
        support.descend(draw_none)
        alone = _image_gradients(learner, task, passage, gradients["backbone"])
        rows = torch.stack([_take_gradient(learner), *alone])
        sizes = gradients["backbone"].norm(dim=1).double().cpu().numpy()
        return cls(rows, _gram_matrix(rows), labels, sizes)

    def coefficients(self, settings: Lite, rng: np.random.Generator) -> np.ndarray:
        """The weight of each row in one draw."""
        if settings.paper:
            chosen = unweighted(self.labels, settings.h, rng)
        else:
            scheme = settings.scheme("backbone")
            chosen = draw_support(scheme, self.labels, settings.h, rng, self.sizes)
        values = np.zeros(1 + len(self.labels))
        values[0] = 1
        values[1 + chosen.units] = chosen.weights
        if settings.sampler == "paper-orbit":
            values *= len(self.labels) / settings.h
        return values


def _image_gradients(
    learner: StagedLearner, task: Task, passage: ChunkedPass, gradient: Tensor
) -> Iterator[Tensor]:
    """The gradient through each support image; `gradient` is that of the support features."""
    for image, by_features in zip(task.images, gradient, strict=True):
        features = passage.run(learner.backbone, image[None])
        torch.autograd.backward(features, by_features[None])
        yield _take_gradient(learner)


def _take_gradient(learner: StagedLearner) -> Tensor:
    """The gradient of all trainable parameters as one vector; it is cleared on the parameters."""
    trainable = [p for p in learner.parameters() if p.requires_grad]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trainable]
    vector = torch.cat([gradient.flatten() for gradient in gradients])
    learner.zero_grad()
    return vector


def _gram_matrix(rows: Tensor) -> Tensor:
    """The products of rows with one another, in float64 on the CPU."""
    total = torch.zeros((len(rows), len(rows)), dtype=torch.float64)
    for block in torch.split(rows, PARAMETER_BLOCK, dim=1):
        wide = block.double()
        total += (wide @ wide.T).cpu()
    return total


def _errors_from_products(products: Tensor) -> GradientErrors:
    """Errors from the products of all draws' errors; those of different draws average to bias squared."""
    draws = len(products)
    own = float(products.trace())
    bias2 = own if draws == 1 else (float(products.sum()) - own) / (draws * (draws - 1))
    return GradientErrors(bias2, own / draws, draws)
