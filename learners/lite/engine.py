"""LITE: the gradient of a task whose support set does not fit in memory.

A loss depends on the support set through stages (see `learners.learner`). The engine computes the value of
each stage for every support image, chunk by chunk, without a graph. Queries are then back-propagated, batch by
batch, down to those values. Last, each stage is computed again with a graph, for all support images or for a
few drawn ones with weights, and what the queries left is back-propagated through it. So values are exact
always, memory is that of one chunk, and the draws (`learners.lite.draws`) decide how exact the gradient is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from learners.labels import Labels
from learners.learner import CHUNK, Passage, StagedLearner, Task
from learners.lite.draws import Draw, Scheme, balanced, draw, unweighted
from learners.lite.queries import Tally, batches
from learners.lite.stages import Stage, Support
from pipeline.errors import UsageError, check_choice

Sampler: TypeAlias = Literal[
    "exact", "neyman", "stratified", "uniform", "none", "subsample", "paper-lite", "paper-orbit"
]
SCHEMES: Final[dict[Sampler, tuple[Scheme, Scheme]]] = {  # of the backbone, of the encoder
    "exact": ("exact", "exact"),
    "neyman": ("neyman", "stratified"),
    "stratified": ("stratified", "stratified"),
    "uniform": ("uniform", "uniform"),
    "none": ("none", "none"),
    "subsample": ("exact", "exact"),
}
PENALTY: Final = 0.001
ENOUGH: Final = 1.5  # units in H for each class
FEW: Final = (
    "h={h} is less than 1.5 for each class of a task: gradients are noisy where a class has one support image "
    "in H or none; more of them cost time, and no memory"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lite:
    """How a task's gradient is taken.

    sampler: which support units carry gradient through the backbone. exact, neyman, stratified, uniform and
        none are those of `learners.lite.draws`. Three more are methods of their own, all biased:
        subsample: h units, the classes as equal as can be, are the whole support set: the naive baseline.
        paper-lite: the VTAB+MD code's. Each batch of queries has an H of its own, the same for encoder and
            backbone, with weight 1; the batches' mean losses are added up, and the penalty with each.
        paper-orbit: the ORBIT code's. The same, with N / h times every loss but the penalty.
        A batch is what the task's `queries` hand over, up to `chunk` images. Those codes do not divide the
        penalty by the tasks of a step: multiply `penalty` by them to have theirs.
    encoder_sampler: the set encoder's; by default stratified where the backbone's is neyman, else the same.
    """

    h: int = 40
    """Support units (images or clips) in H."""
    sampler: Sampler = "neyman"
    encoder_sampler: Scheme | None = None
    chunk: int = CHUNK
    """Images in memory with their graph at a time."""
    precision: torch.dtype | None = None
    """Of autocast in encoder and backbone; generator and head have float32 always."""
    penalty: float = PENALTY
    """Weight of the FiLM regulariser, which counts once per task."""

    def __post_init__(self) -> None:
        check_choice(self.sampler, get_args(Sampler), "the sampler")
        if self.h < 0 or self.chunk < 1:
            raise UsageError(f"h starts at 0 and chunk at 1, got h={self.h} and chunk={self.chunk}")
        if self.encoder_sampler is not None:
            check_choice(self.encoder_sampler, get_args(Scheme), "the encoder's sampler")
            if self.sampler not in get_args(Scheme):
                raise UsageError(f"{self.sampler} rules the encoder, too; give it no other sampler")
        if self.sampler == "paper-orbit" and self.h == 0:
            raise UsageError(
                "paper-orbit divides by h, which then cannot be 0; the sampler none can"
            )

    @property
    def paper(self) -> bool:
        """Whether each batch of queries has an H of its own."""
        return self.sampler.startswith("paper")

    @property
    def samples(self) -> bool:
        """Whether a stage goes through a drawn part of the support set."""
        if self.sampler not in get_args(Scheme):
            return False
        return not {self.scheme("backbone"), self.scheme("encoder")} <= {"exact", "none"}

    def scheme(self, stage: Stage) -> Scheme:
        """Of the backbone or of the encoder."""
        backbone, encoder = SCHEMES[self.sampler]
        return backbone if stage == "backbone" else self.encoder_sampler or encoder


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a task's queries came to."""

    loss: Tensor
    """The mean over queries, without the penalty; like `correct` on the learner's device."""
    correct: Tensor
    """Queries that were classified rightly."""
    queries: int
    h: dict[Stage, int]
    """How many support units were back-propagated through each stage that learns."""


@torch.enable_grad()
def backward(
    learner: StagedLearner,
    task: Task,
    settings: Lite,
    rng: np.random.Generator,
    *,
    scale: float = 1.0,
) -> Outcome:
    """Add `scale` times the gradient of a task's loss to `.grad` of the learner's parameters.

    The loss is the mean over all queries plus the penalty. Draws depend on `rng` alone: make it from the seed
    and the episode's number. After an error, what was added is of no use.
    """
    passage = Passage(clip=task.clip, chunk=settings.chunk, precision=settings.precision)
    images, labels = task.images, Labels.checked(task.labels, task.way, task.clip)
    if settings.sampler == "subsample":
        images, labels = _smaller(task, labels, balanced(labels, settings.h, rng))
    support = Support(learner, images, labels, passage)
    draws = _Draws(settings, labels, rng)
    tally = Tally(task, support.device)
    for batch, answers in batches(task, passage):
        share = scale * _share(settings, task, labels, len(answers))
        tally.add(answers, *support.query(batch, tally.usable(answers), share))
        if settings.paper:
            draws.renew()
            support.descend(draws, again=True)
            _penalise(learner, settings.penalty * scale)
    tally.check()
    if not settings.paper:
        support.descend(draws)
        _penalise(learner, settings.penalty * scale)
    return Outcome(tally.loss / tally.seen, tally.correct, tally.seen, support.used)


class _Draws:
    """The one place that knows which support units carry gradient."""

    def __init__(self, settings: Lite, labels: Labels, rng: np.random.Generator) -> None:
        self._settings = settings
        self._labels = labels
        self._rng = rng
        self._shared = Draw(np.empty(0, np.int64), np.empty(0))
        few = 0 < settings.h < min(ENOUGH * labels.way, len(labels))
        if few and not settings.paper and settings.samples:
            warnings.warn(FEW.format(h=settings.h), stacklevel=4)

    def renew(self) -> None:
        """Another H for the next batch of queries, the papers' way."""
        self._shared = unweighted(self._labels, self._settings.h, self._rng)

    def __call__(self, stage: Stage, gradient: Tensor) -> Draw:
        if self._settings.paper:
            return self._shared
        scheme, sizes = self._settings.scheme(stage), None
        if scheme == "neyman":
            sizes = gradient.norm(dim=1).double().cpu().numpy()
        return draw(scheme, self._labels, self._settings.h, self._rng, sizes)


def _share(settings: Lite, task: Task, labels: Labels, batch: int) -> float:
    """What the loss of one query of a batch counts."""
    if settings.sampler == "paper-lite":
        return 1 / batch
    if settings.sampler == "paper-orbit":
        return len(labels) / (settings.h * batch)
    return task.clip / task.query_count


def _smaller(task: Task, labels: Labels, units: np.ndarray) -> tuple[Tensor, Labels]:
    """The support set of those units."""
    rows = (units[:, None] * task.clip + np.arange(task.clip)).ravel()
    images = task.images[torch.from_numpy(rows).to(task.images.device)]
    return images, Labels(labels.values[units], labels.way)


def _penalise(learner: StagedLearner, weight: float) -> None:
    penalty = learner.penalty()
    if penalty is not None and penalty.requires_grad and weight:
        torch.autograd.backward(weight * penalty)
