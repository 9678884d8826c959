"""Features that tasks share: each image passes through the backbone once, however many tasks show it.

This is for learners whose features of an image do not depend on the task. The images of all tasks are cut
into blocks, whichever tasks are left, so that a feature has the same bits for any number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.evaluate.answers import device_seconds
from learners.evaluate.task_set import DatasetTasks
from learners.heads.base import full_precision
from learners.labels import Labels
from learners.learner import StagedLearner
from learners.networks.chunk_sizes import ChunkSizes, halving
from learners.task import ChunkedPass, Classifier, evaluating
from pipeline.episodes import EpisodePlan, Side
from pipeline.index import Dataset
from pipeline.loader.episode import Episode

MAX_FEATURE_BYTES: Final = 2**32  # of features in memory
MIN_SHOWINGS: Final = 2  # of an image on average, for sharing to be worth it
FLOAT_BYTES: Final = 4
NO_ROWS: Final = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class BlockSampler:
    """A sampler whose episodes are blocks of rows, each as the support set of a plan of its own."""

    dataset: Dataset
    rows: NDArray[np.int64]
    """The rows of all images that the dataset's tasks show."""
    size: int
    """The number of rows of a block; the last one may have fewer."""
    blocks: NDArray[np.int64]
    """The numbers of the blocks that are needed."""
    seed: int = 0

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int, /) -> EpisodePlan:
        begin = int(self.blocks[number]) * self.size  # IndexError past the last
        rows = self.rows[begin : begin + self.size]
        return EpisodePlan(
            number=number, dataset=self.dataset.manifest.name, classes=(0,),
            support=Side(rows, np.zeros_like(rows)), query=Side(NO_ROWS, NO_ROWS),
        )  # fmt: skip


def shared_blocks(
    learner: StagedLearner,
    tasks: DatasetTasks,
    numbers: Iterable[int],
    dataset: Dataset,
    passage: ChunkedPass,
) -> BlockSampler | None:
    """The blocks that the numbered tasks need, if sharing is exact and spares most passes; else None.

    The decision depends on all tasks of the dataset, not on those that are left: a resumed evaluation must
    answer in the same way as before.
    """
    if learner.generator is not None:
        return None
    wanted, shown = set(numbers), 0
    of_all, of_wanted = (np.zeros(len(dataset.index), np.bool_) for _ in range(2))
    for number in range(tasks.tasks):
        plan = tasks.sampler[number]
        if plan.clip > 1:
            return None
        rows = np.concatenate([plan.support.rows, plan.query.rows])
        shown += len(rows)
        of_all[rows] = True
        of_wanted[rows] |= number in wanted
    rows = np.flatnonzero(of_all)
    if len(rows) * MIN_SHOWINGS > shown or len(rows) * learner.backbone.dim * FLOAT_BYTES > MAX_FEATURE_BYTES:
        return None
    size = passage.sizes.forward
    blocks = np.unique(np.flatnonzero(of_wanted[rows]) // size)
    return BlockSampler(dataset, rows, size, blocks)


class FeatureTable:
    """The features of all rows of some blocks, and the classifiers made from them."""

    def __init__(
        self, learner: StagedLearner, blocks: BlockSampler, episodes: Iterable[Episode], passage: ChunkedPass
    ) -> None:
        """Compute the features; `episodes` are the blocks, as the loader delivers them."""
        self._learner, self._passage = learner, passage
        self._positions = np.full(len(blocks.dataset.index), -1)
        features: list[Tensor] = []
        seconds: list[float] = []
        done = 0
        for episode in episodes:
            rows = episode.plan.support.rows[episode.support.positions.cpu().numpy()]
            images = episode.support.images
            begin = device_seconds(images.device)
            with evaluating(learner):
                own, sizes = halving(partial(_block_features, learner, images, passage), passage.sizes)
            passage = passage.resized(sizes)
            features.append(own)
            seconds.append((device_seconds(images.device) - begin) / len(rows))
            self._positions[rows] = done + np.arange(len(rows))
            done += len(rows)
        self.sizes = passage.sizes
        """The images that passed at a time in the end."""
        self._features = torch.cat(features)
        self._seconds = float(np.median(seconds))

    def features(self, rows: NDArray[np.int64]) -> Tensor:
        """The features of these rows."""
        return self._features[torch.from_numpy(self._positions[rows]).to(self._features.device)]

    def adapt(self, plan: EpisodePlan) -> tuple[Classifier, float]:
        """A task's classifier, and its seconds: those of the head, and of passing the support images once."""
        features = self.features(plan.support.rows)
        begin = device_seconds(features.device)
        present, labels = np.unique(plan.support.labels, return_inverse=True)
        checked = Labels.checked(torch.from_numpy(labels), len(present))
        with torch.no_grad(), evaluating(self._learner), full_precision(features.device):
            state = self._learner.head.fit(features, checked)
        seconds = device_seconds(features.device) - begin + self._seconds * len(features)
        return Classifier(self._learner.backbone, self._learner.head, (), state, self._passage), seconds

    def query_features(self, plan: EpisodePlan) -> list[tuple[Tensor, Tensor]]:
        """A task's query features, as `score_queries` takes them."""
        return [(torch.arange(len(plan.query)), self.features(plan.query.rows))]


def _block_features(
    learner: StagedLearner, images: Tensor, passage: ChunkedPass, sizes: ChunkSizes
) -> Tensor:
    """The features of a block's images, in chunks of these sizes."""
    return passage.resized(sizes).whole(learner.backbone, images, ())
