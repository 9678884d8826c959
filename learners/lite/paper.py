"""The papers' own loops over a task: the VTAB+MD code's, and that of ORBIT's code of 2021.

Each batch of queries has an H of its own, drawn uniformly. Embedding, FiLM, features and classifier are made anew for
it: vectors of H have a graph, those of the other support units come from caches, made once per task without one. The
loss is the mean over the batch; the batches' losses are added up, and the penalty with each. The graph of H and of
one batch of queries is in memory at a time. Where the codes differ:

                          paper-lite                          paper-orbit
    batches               of `chunk`; a last single query     of `chunk`
                          or support image joins the
                          batch before
    H passes              in one piece                        in batches
    features are cached   with the FiLM of the first batch    with the FiLM of all cached
                          of queries                          embeddings
    a loss is multiplied  by 1                                by N / h, and the penalty is not

Batches of queries decide how much a query weighs. The rest of the first three rows changes values only where norms
use the statistics of the current batch.

One thing is not reproduced: ORBIT's code caches an embedding for each frame, and looks it up by the number of a clip.
With clips of several frames its task embedding takes single frames of other clips for the rest of the support set.
Here it is the mean over all clips.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.heads.base import full_precision
from learners.labels import Labels
from learners.lite.draws import unweighted
from learners.lite.queries import QueryTally, chunk_sizes, query_chunks
from learners.lite.stages import Stage, StageNetworks, learns
from learners.task import ChunkedPass, Task, split_images
from pipeline.loader.uploads import upload


class PaperLoop:
    """One task in the VTAB+MD code's loop or, with `orbit`, in that of ORBIT's code."""

    def __init__(
        self, learner: StageNetworks, task: Task, labels: Labels, passage: ChunkedPass, *, orbit: bool
    ) -> None:
        self._learner = learner
        self._task = task
        self._labels = labels
        self._passage = passage
        self._orbit = orbit
        self._device = next(learner.backbone.parameters()).device
        self._caches: dict[Stage, Tensor] = {}
        self.used: dict[Stage, int] = {}
        """The number of units back-propagated through each stage that learns, over all batches of queries."""

    def run(self, h: int, penalty: float, rng: np.random.Generator, scale: float) -> QueryTally:
        """Add `scale` times the gradient of the summed losses and penalties to `.grad`."""
        if self._orbit:
            self._fill_caches()
        weight = len(self._labels) / h if self._orbit else 1.0
        tally = QueryTally(self._task, self._device)
        for images, answers in query_chunks(
            self._task, self._passage.units, tally, join_single=not self._orbit
        ):
            units = unweighted(self._labels, h, rng).units
            if self._orbit:
                units = units[rng.permutation(len(units))]  # the order decides which of H pass together
            logits = self._logits(images, *upload(torch.from_numpy(units), device=self._device))
            loss = functional.cross_entropy(logits, answers)
            total = scale * weight * loss
            if (regulariser := self._learner.penalty()) is not None:
                total = total + scale * penalty * regulariser
            if total.requires_grad:
                with full_precision(self._device):  # the head's backward pass needs it
                    torch.autograd.backward(total)
            tally.add(loss.detach() * len(answers), (logits.argmax(1) == answers).sum())
        return tally

    def _logits(self, queries: Tensor, h: Tensor) -> Tensor:
        """The logits of a batch of queries, after adapting to the support set with the graph of H."""
        learner, embedding = self._learner, None
        if learner.encoder is not None:
            embedding = self._vectors("encoder", learner.encoder, h).mean(0)
        film = learner.film(embedding)
        adapted = any(tensor.requires_grad for tensor in film)
        features = self._vectors("backbone", learner.backbone, h, film, adapted=adapted)
        asked = self._passage.run(learner.backbone, queries, film)
        with full_precision(self._device):
            return learner.head.logits(learner.head.fit(features, self._labels), asked)

    def _vectors(
        self, stage: Stage, network: nn.Module, h: Tensor, *arguments: object, adapted: bool = False
    ) -> Tensor:
        """One vector for each support unit: H's with a graph, the others' from the cache.

        The first call fills the cache, unless that is done. adapted: what gradients reach through `arguments`.
        """
        if stage not in self._caches:
            self._caches[stage] = self._without_graph(network, *arguments)
        if adapted or learns(network):
            self.used[stage] = self.used.get(stage, 0) + len(h)
        if not len(h):
            return self._caches[stage]
        passage = self._passage
        if not self._orbit:
            passage = replace(passage, chunk=len(h) * passage.clip)
        parts = [passage.run(network, images, *arguments) for images in passage.parts(self._task.images, h)]
        return self._caches[stage].index_copy(0, h, torch.cat(parts))

    @torch.no_grad()
    def _fill_caches(self) -> None:
        """Compute all embeddings and, with their FiLM, all features."""
        learner, embedding = self._learner, None
        if learner.encoder is not None:
            self._caches["encoder"] = self._without_graph(learner.encoder)
            embedding = self._caches["encoder"].mean(0)
        self._caches["backbone"] = self._without_graph(learner.backbone, learner.film(embedding))

    @torch.no_grad()
    def _without_graph(self, network: nn.Module, *arguments: object) -> Tensor:
        sizes = chunk_sizes(len(self._labels), self._passage.units, join_single=not self._orbit)
        batches = split_images(self._task.images, [size * self._passage.clip for size in sizes])
        return torch.cat([self._passage.run(network, images, *arguments) for images in batches])


def shuffle_task(task: Task, rng: np.random.Generator) -> Task:
    """The task with its support set and its queries in random orders, clips kept whole.

    The papers' codes do this before they batch them.
    """
    images, labels = task.joined_queries()
    support = _shuffled_rows(len(task.labels), task.clip, rng)
    query = _shuffled_rows(len(labels), task.clip, rng)
    return replace(
        task,
        images=_taken(task.support, support),
        labels=_taken(task.labels, support),
        queries=[(_taken(images, query), _taken(labels, query))],
    )


def _shuffled_rows(images: int, clip: int, rng: np.random.Generator) -> Tensor:
    starts = rng.permutation(images // clip) * clip
    return torch.from_numpy((starts[:, None] + np.arange(clip)).ravel())


def _taken(values: Tensor, rows: Tensor) -> Tensor:
    return values[rows.to(values.device)]
