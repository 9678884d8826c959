"""VTAB's tasks as episodes: a thousand support images, and a whole test set as the query."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.episodes import EpisodePlan, Side
from pipeline.errors import UsageError, check_choice
from pipeline.index import Dataset
from pipeline.samplers.mixture import checked_seed, random_state
from pipeline.samplers.pool import draw_distinct
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)

VTAB_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "natural": ("caltech101", "cifar100", "flowers102", "pets", "sun397", "svhn"),
    "specialised": ("eurosat", "resisc45", "camelyon", "retinopathy"),
    "structured": (
        "clevr_count",
        "clevr_distance",
        "dmlab",
        "dsprites_orientation",
        "dsprites_location",
        "smallnorb_azimuth",
        "smallnorb_elevation",
        "kitti_distance",
    ),
}
"""The benchmark's tasks, in the order of its tables."""
SUPPORT_IMAGES: Final = 1000  # in both protocols
PROTOCOL_COLUMNS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "vtab": ("split", ("train", "validation")),  # 800 and 200 images
    "lite": ("split_lite", ("train",)),
}
"""The index column of each protocol, and the splits in it that are support."""


class Vtab:
    """One episode for each task: `sampler[i]` is task i of those in the shard set, or of `tasks`.

    A label is the class's id in the dataset, so `way` counts all of its classes. A thousand images do not
    include every class of SUN397: `plan.shots` is 0 for the others, and their query images cannot be right.
    `query_limit`: so many of the query images, drawn by the seed, for a quick look.
    """

    def __init__(
        self,
        shards: ShardSet,
        *,
        protocol: Literal["vtab", "lite"] = "vtab",
        tasks: Sequence[str] | None = None,
        query_limit: int | None = None,
        seed: int = 0,
    ) -> None:
        check_choice(protocol, tuple(PROTOCOL_COLUMNS), "protocol")
        if query_limit is not None and query_limit < 1:
            raise UsageError(f"query_limit starts at 1, got {query_limit}")
        self.seed = checked_seed(seed)
        self.protocol, self.query_limit = protocol, query_limit
        self.tasks = _task_names(shards, tasks)
        self._datasets = [shards[name] for name in self.tasks]
        for dataset in self._datasets:
            _check_dataset(dataset, protocol)

    def __len__(self) -> int:
        return len(self.tasks)

    def __getitem__(self, number: int, /) -> EpisodePlan:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} tasks, from 0; got {number}")
        dataset = self._datasets[number]
        support, query = _side_rows(dataset, self.protocol)
        if self.query_limit is not None and self.query_limit < len(query):
            random = random_state(self.seed, number)
            chosen = draw_distinct(random, np.array([len(query)]), np.array([self.query_limit]))
            query = query[np.sort(chosen)]
        class_ids = dataset.index["class_id"].astype(np.int64)
        return EpisodePlan(
            number=int(number),
            dataset=dataset.manifest.name,
            classes=tuple(range(len(dataset.manifest.classes))),
            support=Side(support, class_ids[support]),
            query=Side(query, class_ids[query]),
        )

    def __repr__(self) -> str:
        limit = "" if self.query_limit is None else f", query_limit={self.query_limit}"
        return f"Vtab({self.protocol!r}{limit}, seed={self.seed}, of {', '.join(self.tasks)})"


def _task_names(shards: ShardSet, tasks: Sequence[str] | None) -> tuple[str, ...]:
    if tasks is None:
        benchmark = [name for names in VTAB_GROUPS.values() for name in names]
        tasks = [name for name in benchmark if name in shards.datasets]
    if isinstance(tasks, str) or len(set(tasks)) < len(tasks):
        raise UsageError(f"tasks= takes a list of different names, got {tasks!r}")
    if not tasks:
        raise UsageError(
            f"{shards.root} has no task of VTAB; it has {', '.join(shards.datasets)}; build them with "
            "python -m pipeline.build --dataset vtab, or name others with tasks="
        )
    return tuple(tasks)


def _side_rows(dataset: Dataset, protocol: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows of support and query."""
    column, splits = PROTOCOL_COLUMNS[protocol]
    support = np.logical_or.reduce([dataset.index.is_word(column, split) for split in splits])
    return np.flatnonzero(support), np.flatnonzero(dataset.index.is_word(column, "test"))


def _check_dataset(dataset: Dataset, protocol: str) -> None:
    name, (column, splits) = dataset.manifest.name, PROTOCOL_COLUMNS[protocol]
    sides = _side_rows(dataset, protocol) if column in dataset.index.words else ((), ())
    support, query = map(len, sides)
    if not support or not query:
        raise UsageError(
            f"{name} has {support} support and {query} query images under the protocol {protocol!r} "
            f"(column {column}: {' and '.join(splits)}, test); build it with --protocol both"
        )
    if support != SUPPORT_IMAGES:
        log.warning(
            "%s has %d support images under the protocol %r and the benchmark has %d: results may "
            "not be comparable",
            *(name, support, protocol, SUPPORT_IMAGES),
        )
