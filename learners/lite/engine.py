"""LITE: the gradient of a task whose support set does not fit in memory.

A loss depends on the support set through stages (see `learners.learner`). The engine computes each stage's
value for every support image, chunk by chunk as images arrive, without a graph. Queries are then back-propagated, batch by
batch, down to those values. Last, each stage is recomputed with a graph, for all support images or for a few
drawn ones with weights, and the gradients that the queries left are back-propagated through it. So values are
always exact, memory is that of one chunk, and the draws (`learners.lite.draws`) decide how exact the gradient is.

Queries can be treated the same way: all pass through the backbone without a graph, which gives the loss, the
head's gradient and the gradient at each query's feature, all exact; then a drawn part of them passes again, with a
graph, and is back-propagated from there.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from learners.labels import Labels
from learners.lite.draws import QueryScheme, Scheme, UnitDraw, balanced, draw_queries, draw_support, takes_all
from learners.lite.paper import PaperLoop
from learners.lite.queries import QueryTally, look_at_queries, query_chunks
from learners.lite.stages import Stage, StageNetworks, SupportStages, gradient_sizes
from learners.lite.transfers import HostTransfers
from learners.networks.chunk_sizes import DEFAULT_CHUNK
from learners.task import ChunkedPass, Task
from pipeline.errors import UsageError, check_choice
from pipeline.loader.uploads import upload

SamplerName: TypeAlias = Literal[
    "exact", "neyman", "stratified", "uniform", "none", "subsample", "paper-lite", "paper-orbit"
]
SCHEMES: Final[dict[SamplerName, tuple[Scheme, Scheme]]] = {  # of the backbone, of the encoder
    "exact": ("exact", "exact"),
    "neyman": ("neyman", "stratified"),
    "stratified": ("stratified", "stratified"),
    "uniform": ("uniform", "uniform"),
    "none": ("none", "none"),
    "subsample": ("exact", "exact"),
}
PENALTY: Final = 0.001
ENOUGH_PER_CLASS: Final = 1.5  # units in H for each class
FEW_IN_H: Final = (
    "h={h} is less than 1.5 for each class of a task: gradients are noisy where a class has one support image "
    "in H or none; more of them cost time, and no memory"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lite:
    """How a task's gradient is computed.

    sampler: which support units carry gradient through the backbone. exact, neyman, stratified, uniform and
        none are described in `learners.lite.draws`. The other three are biased:
        subsample: h units, balanced over classes, replace the whole support set: the naive baseline.
        paper-lite: the VTAB+MD code's loop. Each batch of queries has an H of its own, the same for encoder and
            backbone, with weight 1; the batches' mean losses are added up, and the penalty with each.
        paper-orbit: the loop of ORBIT's code of 2021. The same, with N / h times every loss but the penalty.
        `learners.lite.paper` has both loops, `train.py` what those codes do around them: it shuffles the
        task first, and does not divide the penalty by the tasks of a step.
    encoder_sampler: the sampler for the set encoder; by default stratified where the backbone's is neyman, else
        the same as the backbone's.
    """

    h: int = 40
    """Support units (images or clips) in H."""
    sampler: SamplerName = "neyman"
    encoder_sampler: Scheme | None = None
    query_h: int | None = None
    """Queries (images or clips) that carry gradient through the backbone; None: all of them."""
    query_sampler: QueryScheme = "neyman"
    """How they are drawn, where there are fewer than all."""
    chunk: int = DEFAULT_CHUNK
    """Images in memory with their graph at a time; in the papers' loops a batch, and H besides."""
    forward_chunk: int | None = None
    """Images at a time in passes without a graph; None: as many as `chunk`."""
    precision: torch.dtype | None = None
    """The autocast dtype of encoder and backbone; generator and head always use float32."""
    penalty: float = PENALTY
    """Weight of the FiLM regulariser, once per task; in the papers' loops once per batch of queries."""

    def __post_init__(self) -> None:
        check_choice(self.sampler, get_args(SamplerName), "the sampler")
        if self.h < 0 or self.chunk < 1:
            raise UsageError(f"h starts at 0 and chunk at 1, got h={self.h} and chunk={self.chunk}")
        if self.paper and self.forward_chunk not in (None, self.chunk):
            raise UsageError(
                f"the papers' loops have one size of batches; leave out forward_chunk={self.forward_chunk}"
            )
        if self.encoder_sampler is not None:
            check_choice(self.encoder_sampler, get_args(Scheme), "the encoder's sampler")
            if self.sampler not in get_args(Scheme):
                raise UsageError(f"{self.sampler} rules the encoder, too; give it no other sampler")
        check_choice(self.query_sampler, get_args(QueryScheme), "the queries' sampler")
        if self.query_h is not None and (self.query_h < 1 or self.paper):
            raise UsageError(
                f"query_h starts at 1, and the papers' loops back-propagate all queries; got query_h={self.query_h} "
                f"with {self.sampler}"
            )
        if self.sampler == "paper-orbit" and self.h == 0:
            raise UsageError("paper-orbit divides by h, which then cannot be 0; the sampler none can")

    @property
    def paper(self) -> bool:
        """Whether each batch of queries has an H of its own."""
        return self.sampler.startswith("paper")

    @property
    def samples(self) -> bool:
        """Whether some stage is back-propagated for a drawn part of the support set only."""
        if self.sampler not in get_args(Scheme):
            return False
        return not {self.scheme("backbone"), self.scheme("encoder")} <= {"exact", "none"}

    def passage(self, clip: int) -> ChunkedPass:
        """How the images of a task pass through networks."""
        return ChunkedPass(
            clip=clip, chunk=self.chunk, forward_chunk=self.forward_chunk, precision=self.precision
        )

    def scheme(self, stage: Stage) -> Scheme:
        """The scheme of a stage: backbone or encoder."""
        backbone, encoder = SCHEMES[self.sampler]
        return backbone if stage == "backbone" else self.encoder_sampler or encoder


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """The loss and accuracy of a task's queries."""

    loss: Tensor
    """The mean over queries, without the penalty; on the host, like `correct`."""
    correct: Tensor
    """The number of queries classified correctly."""
    queries: int
    h: dict[Stage, int]
    """The number of support units back-propagated through each stage that learns."""
    waited: float = 0.0
    """Seconds in which the host waited for the device to have computed what it then fetched."""


@torch.enable_grad()
def backward(
    learner: StageNetworks, task: Task, settings: Lite, rng: np.random.Generator, *, scale: float = 1.0
) -> Outcome:
    """Add `scale` times the gradient of a task's loss to `.grad` of the learner's parameters.

    The loss is the mean over all queries plus the penalty, but in the papers' loops. Draws depend on `rng` alone:
    make it from the seed and the episode's number. If this raises, `.grad` holds an incomplete gradient.
    """
    passage = settings.passage(task.clip)
    images, labels = task.images, Labels.checked(task.labels, task.way, task.clip)
    if settings.paper:
        orbit = settings.sampler == "paper-orbit"
        loop = PaperLoop(learner, task, labels, passage, orbit=orbit)
        return _outcome(loop.run(settings.h, settings.penalty, rng, scale), loop.used)
    if settings.sampler == "subsample":
        images, labels = _support_subset(task, labels, balanced(labels, settings.h, rng))
    keep = _passed_once(settings, len(labels), task.query_count // task.clip, passage)
    support = SupportStages(learner, images, labels, passage, keep=keep)
    tally = QueryTally(task, support.device)
    draws = _StageDraws(settings, labels, rng, tally.transfers)
    share = scale * task.clip / task.query_count
    if settings.query_h is None or settings.query_h * task.clip >= task.query_count:
        for batch, answers in query_chunks(task, passage.units, tally):
            tally.add(*support.query(batch, answers, share))
    else:
        chunks = query_chunks(task, passage.forward_units, tally)
        looked = look_at_queries(support, chunks, tally, share)
        if looked is not None:
            images, gradient = looked
            sizes = gradient_sizes(gradient, tally.transfers.fetch)
            chosen = draw_queries(settings.query_sampler, settings.query_h, rng, sizes)
            support.replay_queries(images, chosen, gradient)
    support.descend(draws)
    _penalise(learner, settings.penalty * scale)
    return _outcome(tally, support.used)


def _passed_once(settings: Lite, units: int, queries: int, passage: ChunkedPass) -> list[Stage]:
    """The stages that all units pass once, with a graph: all are in H, and no more than a chunk with the queries."""
    stages = [stage for stage in get_args(Stage) if takes_all(settings.scheme(stage), settings.h, units)]
    return stages if len(stages) * units + queries <= passage.units else []


class _StageDraws:
    """The draws of one task: which support units carry gradient through each stage."""

    def __init__(
        self, settings: Lite, labels: Labels, rng: np.random.Generator, transfers: HostTransfers
    ) -> None:
        self._settings = settings
        self._labels = labels
        self._rng = rng
        self._transfers = transfers
        few = 0 < settings.h < min(ENOUGH_PER_CLASS * labels.way, len(labels))
        if few and settings.samples:
            warnings.warn(FEW_IN_H.format(h=settings.h), stacklevel=4)

    def __call__(self, stage: Stage, gradient: Tensor) -> UnitDraw:
        scheme, sizes = self._settings.scheme(stage), None
        if scheme == "neyman":
            sizes = gradient_sizes(gradient, self._transfers.fetch)
        return draw_support(scheme, self._labels, self._settings.h, self._rng, sizes)


def _outcome(tally: QueryTally, used: dict[Stage, int]) -> Outcome:
    return Outcome(*tally.finish(), tally.seen, used, tally.transfers.seconds)


def _support_subset(task: Task, labels: Labels, units: np.ndarray) -> tuple[Tensor, Labels]:
    """The support set reduced to the given units."""
    rows = (units[:, None] * task.clip + np.arange(task.clip)).ravel()
    images = task.support
    (chosen,) = upload(torch.from_numpy(rows), device=images.device)
    return images[chosen], Labels(labels.values[units], labels.way)


def _penalise(learner: StageNetworks, weight: float) -> None:
    penalty = learner.penalty()
    if penalty is not None and penalty.requires_grad and weight:
        torch.autograd.backward(weight * penalty)
