"""Measure the error of a task's estimated gradient over many draws: its bias and its spread.

Without a set encoder the gradient is linear in the weights of a draw: what no draw touches, plus one vector for
each support image (or each query, where queries are drawn) times its weight. These vectors are computed once, and
then a draw costs no more than its random numbers. All other cases (a learner with a set encoder, the subsampled
task) go through the engine, draw by draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from learners.labels import Labels
from learners.learner import StagedLearner
from learners.lite.draws import QueryScheme, UnitDraw, draw_queries, draw_support, unweighted
from learners.lite.engine import FEW_IN_H, Lite, SamplerName, backward
from learners.lite.stages import Stage, SupportStages, gradient_sizes
from learners.networks.arithmetic import Precision
from learners.task import ChunkedPass, Task
from pipeline.episodes import LITE_DRAW, generator

StudiedSampler: TypeAlias = SamplerName | Literal["query-uniform", "query-neyman"] | Precision
QUERY_SAMPLERS: Final[dict[StudiedSampler, QueryScheme]] = {
    "query-uniform": "uniform",
    "query-neyman": "neyman",
}
"""Draws of queries; the support set then has its exact gradient."""
PARAMETER_BLOCK: Final = 1 << 18  # parameters whose products are summed at a time, in float64


class GradientErrors(NamedTuple):
    """Errors of one sampler at one |H| on one task, relative to the exact gradient's squared length."""

    bias2: float
    """Squared length of the mean error, estimated without bias: it can be below zero."""
    mse: float
    """Mean squared length of the error."""
    draws: int


def lite_settings(sampler: StudiedSampler, h: int, task: Task) -> Lite:
    """Settings with all queries in one batch, so that the papers' samplers draw one H.

    The penalty is left out: it does not depend on the draw.
    """
    chunk = max(Lite().chunk, task.query_count)
    if scheme := QUERY_SAMPLERS.get(sampler):
        return Lite(sampler="exact", query_h=h, query_sampler=scheme, chunk=chunk, penalty=0.0)
    return Lite(h=h, sampler=cast("SamplerName", sampler), chunk=chunk, penalty=0.0)


def engine_gradient(
    learner: StagedLearner, task: Task, settings: Lite, rng: np.random.Generator, *, scale: float = 1.0
) -> Tensor:
    """The engine's gradient of the trainable parameters times `scale`, as one vector."""
    learner.zero_grad()
    with warnings.catch_warnings():  # a study has a small H on purpose
        warnings.filterwarnings("ignore", FEW_IN_H.format(h=settings.h), UserWarning)
        backward(learner, task, settings, rng, scale=scale)
    return _take_gradient(learner)


def active_share(learner: StagedLearner, task: Task) -> float:
    """The share of queries that the gradient comes from: near 0 where the softmax is saturated.

    (sum r)^2 / sum r^2, where r is the length of the loss's gradient by a query's logits, is their number.
    """
    classify = learner.adapt(task.support, task.labels, task.way)
    images, answers = task.joined_queries()
    difference = classify(images).double()
    difference[torch.arange(len(answers)), answers] -= 1
    r = difference.norm(dim=1)
    return effective_share(r)


def effective_share(lengths: Tensor) -> float:
    """(sum r)^2 / sum r^2 over the number of lengths r: the share of the units that a sum mostly consists of."""
    wide = lengths.double()
    least = torch.finfo(wide.dtype).tiny
    return float(wide.sum().square() / wide.square().sum().clamp_min(least)) / len(wide)


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
        self.chunk = exact.chunk

    @cached_property
    def support(self) -> LinearGradient:
        """The gradient as a sum over support images."""
        return support_sum(self._learner, self._task, self.chunk)

    @cached_property
    def queries(self) -> LinearGradient:
        """The gradient as a sum over queries."""
        return query_sum(self._learner, *self.looked, self.chunk, self.exact)

    @cached_property
    def looked(self) -> tuple[Tensor, Tensor]:
        """All queries, and the loss's gradient at their features."""
        return look_at_task(self._learner, self._task, self.chunk)

    @property
    def effective_queries(self) -> float:
        """The share of the queries that the gradient at their features mostly comes from."""
        return effective_share(self.looked[1].norm(dim=1))

    def rng(self) -> np.random.Generator:
        """Random numbers of this task; every sampler starts with the same."""
        return generator(self._seed, self._number, LITE_DRAW)

    def is_linear(self, sampler: StudiedSampler) -> bool:
        """Whether a draw costs no pass through the engine."""
        return self._learner.encoder is None and sampler != "subsample"

    def errors(self, sampler: StudiedSampler, h: int, draws: int) -> GradientErrors:
        """Errors over so many draws, or over one where nothing is random."""
        settings, rng = lite_settings(sampler, h, self._task), self.rng()
        count = 1 if sampler in ("none", "exact") else draws
        if self.is_linear(sampler):
            linear = self._sum(sampler)
            differences = torch.from_numpy(
                np.stack([linear.coefficients(settings, rng) for _ in range(count)]) - 1
            )
            products = differences @ linear.gram @ differences.T
        else:
            estimates = [self._from_engine(settings, rng) for _ in range(count)]
            products = _gram_matrix(torch.stack(estimates) - self.exact)
        return _errors_from_products(products / self.norm2)

    def disagreement(self, sampler: StudiedSampler, h: int) -> float:
        """Distance between one draw's gradient by the engine and by the sum, relative to the exact one."""
        settings, linear = lite_settings(sampler, h, self._task), self._sum(sampler)
        weights = torch.from_numpy(linear.coefficients(settings, self.rng())).to(linear.rows.device).float()
        summed = weights @ linear.rows.float()
        return float((summed - self._from_engine(settings, self.rng())).norm() / self.norm2**0.5)

    def _sum(self, sampler: StudiedSampler) -> LinearGradient:
        return self.queries if sampler in QUERY_SAMPLERS else self.support

    def _from_engine(self, settings: Lite, rng: np.random.Generator) -> Tensor:
        return engine_gradient(self._learner, self._task, settings, rng)


@dataclass(frozen=True, slots=True, eq=False)
class LinearGradient:
    """The vectors of which a gradient is a weighted sum."""

    rows: Tensor
    """1 + N gradients: what no draw touches, then through each unit that can be drawn."""
    gram: Tensor
    """Products of the rows, float64."""
    draw: Callable[[Lite, np.random.Generator], UnitDraw]
    """A draw of units with the settings' scheme."""

    def coefficients(self, settings: Lite, rng: np.random.Generator) -> np.ndarray:
        """The weight of each row in one draw."""
        chosen, units = self.draw(settings, rng), len(self.rows) - 1
        values = np.zeros(1 + units)
        values[0] = 1
        values[1 + chosen.units] = chosen.weights
        if settings.sampler == "paper-orbit":
            values *= units / settings.h
        return values


def support_sum(learner: StagedLearner, task: Task, chunk: int) -> LinearGradient:
    """Back-propagate the queries once, then each support image alone. Holds 1 + N gradients."""
    labels, passage = Labels.checked(task.labels, task.way), ChunkedPass(chunk=chunk)
    support = SupportStages(learner, task.images, labels, passage)
    gradients: dict[Stage, Tensor] = {}

    def draw_none(stage: Stage, gradient: Tensor) -> UnitDraw:
        gradients[stage] = gradient
        return draw_support("none", labels, 0, np.random.default_rng(0))

    learner.zero_grad()
    support.query(*task.joined_queries(), 1 / task.query_count)
    support.descend(draw_none)
    alone = _image_gradients(learner, task.support, passage, gradients["backbone"])
    rows = _filled(_take_gradient(learner), alone, len(gradients["backbone"]))
    sizes = gradient_sizes(gradients["backbone"])

    def draw(settings: Lite, rng: np.random.Generator) -> UnitDraw:
        if settings.paper:
            return unweighted(labels, settings.h, rng)
        return draw_support(settings.scheme("backbone"), labels, settings.h, rng, sizes)

    return LinearGradient(rows, _gram_matrix(rows), draw)


def look_at_task(learner: StagedLearner, task: Task, chunk: int) -> tuple[Tensor, Tensor]:
    """All queries of a task, and the gradient of its loss at their features."""
    labels, passage = Labels.checked(task.labels, task.way), ChunkedPass(chunk=chunk)
    support = SupportStages(learner, task.images, labels, passage)
    images, answers = task.joined_queries()
    _, _, gradient = support.look(images, answers, 1 / task.query_count)
    assert gradient is not None
    return images, gradient


def query_sum(
    learner: StagedLearner, images: Tensor, gradient: Tensor, chunk: int, exact: Tensor
) -> LinearGradient:
    """Back-propagate each query alone; the rest of the exact gradient is what no draw of queries touches."""
    passage = ChunkedPass(chunk=chunk)
    learner.zero_grad()
    rows = _filled(exact, _image_gradients(learner, images, passage, gradient), len(images))
    rows[0] -= rows[1:].sum(0)
    sizes = gradient_sizes(gradient)

    def draw(settings: Lite, rng: np.random.Generator) -> UnitDraw:
        assert settings.query_h is not None
        return draw_queries(settings.query_sampler, settings.query_h, rng, sizes)

    return LinearGradient(rows, _gram_matrix(rows), draw)


def _image_gradients(
    learner: StagedLearner, images: Tensor, passage: ChunkedPass, gradient: Tensor
) -> Iterator[Tensor]:
    """The gradient through each image; `gradient` is that at the images' features."""
    for image, by_features in zip(images, gradient, strict=True):
        features = passage.run(learner.backbone, image[None])
        torch.autograd.backward(features, by_features[None])
        yield _take_gradient(learner)


def _filled(first: Tensor, others: Iterable[Tensor], count: int) -> Tensor:
    """Rows of one matrix, filled as they come: a list of them and the matrix would need the memory twice."""
    rows = first.new_empty(1 + count, len(first))
    rows[0] = first
    for row, other in zip(rows[1:], others, strict=True):
        row.copy_(other)
    return rows


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
