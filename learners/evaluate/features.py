"""Features that tasks share: each image passes through the backbone once, however many tasks show it.

For learners whose features of an image do not depend on the task. The images of all tasks are cut into
blocks, whatever is left of the tasks, so that a feature has the same bits in however many processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.evaluate.answers import now
from learners.evaluate.work import Part
from learners.heads.base import full_precision
from learners.labels import Labels
from learners.learner import Classifier, Passage, StagedLearner, evaluating
from pipeline.episodes import EpisodePlan, Side
from pipeline.index import Dataset
from pipeline.loader.episode import Episode

MOST_BYTES: Final = 2**32  # of features in memory
WORTH: Final = 2  # times that an image must be shown, on average
FLOAT: Final = 4  # bytes
NONE: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A sampler of blocks of rows, each as the support of a plan of its own."""

    dataset: Dataset
    rows: NDArray[np.int64]
    """All that the part's tasks show."""
    size: int
    """Rows of a block; the last one may have fewer."""
    blocks: NDArray[np.int64]
    """Those that are needed."""
    seed: int = 0

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int, /) -> EpisodePlan:
        begin = int(self.blocks[number]) * self.size  # IndexError past the last
        rows = self.rows[begin : begin + self.size]
        return EpisodePlan(
            number=number, dataset=self.dataset.manifest.name, classes=(0,),
            support=Side(rows, np.zeros_like(rows)), query=Side(NONE, NONE),
        )  # fmt: skip


def shared(
    net: StagedLearner, part: Part, numbers: Iterable[int], dataset: Dataset, passage: Passage
) -> Blocks | None:
    """The blocks that these tasks need, if sharing is exact and spares most passes; else None.

    Whether it is worth it depends on all tasks of the part: those that are left must not be answered
    otherwise than those before them.
    """
    if net.generator is not None:
        return None
    asked, shown = set(numbers), 0
    every, own = (np.zeros(len(dataset.index), np.bool_) for _ in range(2))
    for number in range(part.tasks):
        plan = part.sampler[number]
        if plan.clip > 1:
            return None
        rows = np.concatenate([plan.support.rows, plan.query.rows])
        shown += len(rows)
        every[rows] = True
        own[rows] |= number in asked
    rows = np.flatnonzero(every)
    if len(rows) * WORTH > shown or len(rows) * net.backbone.dim * FLOAT > MOST_BYTES:
        return None
    return Blocks(
        dataset, rows, passage.chunk, np.unique(np.flatnonzero(own[rows]) // passage.chunk)
    )


class Table:
    """The features of those blocks' rows, and classifiers made of them."""

    def __init__(
        self, net: StagedLearner, blocks: Blocks, episodes: Iterable[Episode], passage: Passage
    ) -> None:
        """Episodes: those of the blocks."""
        self._net, self._passage = net, passage
        self._places = np.full(len(blocks.dataset.index), -1)
        parts: list[Tensor] = []
        seconds: list[float] = []
        done = 0
        for episode in episodes:
            rows = episode.plan.support.rows[episode.support.positions.cpu().numpy()]
            images = episode.support.images
            begin = now(images.device)
            with evaluating(net):
                parts.append(passage.whole(net.backbone, images, ()))
            seconds.append((now(images.device) - begin) / len(rows))
            self._places[rows] = done + np.arange(len(rows))
            done += len(rows)
        self._features = torch.cat(parts)
        self._seconds = float(np.median(seconds))

    def of(self, rows: NDArray[np.int64]) -> Tensor:
        """The features of these rows."""
        return self._features[torch.from_numpy(self._places[rows]).to(self._features.device)]

    def adapt(self, plan: EpisodePlan) -> tuple[Classifier, float]:
        """A task's classifier, and its seconds: the head's, and what passing its images once takes."""
        features = self.of(plan.support.rows)
        begin = now(features.device)
        seen, labels = np.unique(plan.support.labels, return_inverse=True)
        known = Labels.checked(torch.from_numpy(labels), len(seen))
        with torch.no_grad(), evaluating(self._net), full_precision(features.device):
            state = self._net.head.fit(features, known)
        seconds = now(features.device) - begin + self._seconds * len(features)
        return Classifier(self._net, (), state, self._passage), seconds

    def asked(self, plan: EpisodePlan) -> list[tuple[Tensor, Tensor]]:
        """A task's queries, as `answers.ask` takes them."""
        return [(torch.arange(len(plan.query)), self.of(plan.query.rows))]
