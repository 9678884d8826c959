"""Shards as `torch.utils.data` datasets, for programs that have samplers and DataLoaders of their own.

`EpisodeLoader` is faster. A `ClassDataset` is what others' few-shot samplers draw from:

    easyfsl       TaskSampler(data, n_way=5, n_shot=5, n_query=10, n_tasks=100)
    learn2learn   MetaDataset(data, labels_to_indices=data.labels_to_indices)

easyfsl 1.5.0 is written for older versions of torch, whose `Sampler` still took an argument.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset as MapDataset
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.decoders.base import Job
from pipeline.decoders.fill import Filler
from pipeline.episodes import Sampler
from pipeline.errors import IntegrityError, UsageError
from pipeline.index import Dataset
from pipeline.loader.loader import EpisodeLoader
from pipeline.shardset import ShardSet
from pipeline.store.local import Store, spots_of

CHW = (2, 0, 1)


class ClassDataset(MapDataset[tuple[Any, int]]):
    """One dataset and split: `data[i]` is (image, label), the image uint8, 3 x size x size.

    Labels are 0, 1, ... for the classes that the split has, in the order of the manifest. Batches are read
    at once (`__getitems__`). May be pickled, and used by DataLoader's workers however they are started.
    """

    def __init__(
        self,
        shards: ShardSet | str | Path,
        dataset: str | None = None,
        *,
        split: str,
        image_size: int,
        transform: Callable[[torch.Tensor], Any] | None = None,
    ) -> None:
        """Open a dataset; reads the index and no picture.

        dataset: its name in the shard set; not needed if there is one only.
        split: train, validation or test; "" for all pictures.
        transform: what becomes of each image, in the worker.
        """
        opened = shards if isinstance(shards, ShardSet) else ShardSet.open(shards)
        self._dataset = _one(opened, dataset)
        name = self._dataset.manifest.name
        self._shards = replace(
            opened, datasets={name: self._dataset}
        )  # all that travels to workers
        self._size = image_size
        self._transform = transform
        self._rows = _rows(self._dataset, split)
        spots_of(self._dataset, image_size, self._rows[:0])  # refuses a size that is not stored
        self.class_ids, self.labels = np.unique(
            self._dataset.index["class_id"][self._rows], return_inverse=True
        )
        """The dataset's class ids by label; the label of each image."""
        self._store: Store | None = None
        self._process = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[tuple[Any, int]]:
        """Several at once, as DataLoader asks for them: a remote set's bytes are fetched side by side."""
        known = range(len(self))
        places = [known[position] for position in positions]  # IndexError beyond the end
        spots = spots_of(self._dataset, self._size, self._rows[places])
        pixels = torch.empty(len(places), self._size, self._size, 3, dtype=torch.uint8)
        store = self._open_store()
        if len(places) > 1:
            store.prefetch(spots)
        faults = Filler(store).fill(Job(spots, pixels), 0, len(places))
        if faults:
            raise IntegrityError(faults[0].reason)
        transform = self._transform
        images = (image.permute(CHW) for image in pixels)
        return [
            (image if transform is None else transform(image), int(self.labels[place]))
            for image, place in zip(images, places, strict=True)
        ]

    @property
    def classes(self) -> list[str]:
        """The name of each label."""
        records = self._dataset.manifest.classes
        return [records[class_id].words or records[class_id].name for class_id in self.class_ids]

    def get_labels(self) -> list[int]:
        """The label of each image; easyfsl asks for it."""
        labels: list[int] = self.labels.tolist()
        return labels

    @property
    def labels_to_indices(self) -> dict[int, list[int]]:
        """The positions of each label's images; spares learn2learn a look at every picture."""
        order = np.argsort(self.labels, kind="stable")
        ends = np.cumsum(np.bincount(self.labels))[:-1]
        return {label: part.tolist() for label, part in enumerate(np.split(order, ends))}

    def _open_store(self) -> Store:
        """This process's own: threads and locks do not survive a fork."""
        if self._store is None or self._process != os.getpid():
            self._store, self._process = self._shards.open_store(), os.getpid()
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}


class EpisodeTensors(NamedTuple):
    """One episode, whole; images uint8, n x 3 x size x size, labels int64."""

    support_images: torch.Tensor
    support_labels: torch.Tensor
    query_images: torch.Tensor
    query_labels: torch.Tensor


class EpisodeDataset(IterableDataset[EpisodeTensors]):
    """Whole episodes for `DataLoader(data, batch_size=None, num_workers=W)`.

    The same episodes in the same order for any number of workers: worker w takes every W-th, and DataLoader
    takes from them in turn. Each pass is `start` up to `stop`, or the sampler's end, again.
    """

    def __init__(  # noqa: PLR0913 - all but the first two by name
        self,
        shards: ShardSet,
        sampler: Sampler,
        *,
        image_size: int,
        start: int = 0,
        stop: int | None = None,
        rank: int = 0,
        world: int = 1,
        on_error: Literal["raise", "replace"] = "raise",
        fast: bool = False,
    ) -> None:
        """rank, world: this process takes the episodes start + rank, start + rank + world, ...

        on_error, fast: as for `EpisodeLoader`; there is no mask, a tuple has no room for one.
        """
        if on_error not in {"raise", "replace"}:
            raise UsageError(f"on_error is raise or replace here, got {on_error!r}")
        self._shards, self._sampler = shards, sampler
        self._options: dict[str, Any] = {
            "image_size": image_size, "on_error": on_error, "fast": fast, "start": start,
        }  # fmt: skip
        self._start, self._stop, self._rank, self._world = start, stop, rank, world
        self._loader(rank, world).close()  # refuses now what would fail in a worker

    def __iter__(self) -> Iterator[EpisodeTensors]:
        worker = get_worker_info()
        place, workers, threads = (worker.id, worker.num_workers, 1) if worker else (0, 1, None)
        rank, world = self._rank + place * self._world, self._world * workers
        numbers = count() if self._stop is None else range(self._start + rank, self._stop, world)
        with self._loader(rank, world, threads) as loader:
            for _, episode in zip(numbers, loader, strict=False):
                support, query = episode.support, episode.query
                yield EpisodeTensors(support.images, support.labels, query.images, query.labels)

    def __len__(self) -> int:
        """Of one pass; TypeError if it has no end."""
        try:
            end = len(self._sampler)  # type: ignore[arg-type]
        except TypeError:
            if self._stop is None:
                raise
            end = self._stop
        stop = end if self._stop is None else min(end, self._stop)
        return len(range(self._start + self._rank, stop, self._world))

    def _loader(self, rank: int, world: int, threads: int | None = None) -> EpisodeLoader:
        """H is empty: the support set comes in one piece."""
        return EpisodeLoader(
            self._shards,
            self._sampler,
            h=0,
            rank=rank,
            world=world,
            threads=threads,
            **self._options,
        )


def _one(shards: ShardSet, name: str | None) -> Dataset:
    if name is None and len(shards) > 1:
        raise UsageError(
            f"{shards.root} holds {len(shards)} datasets, {', '.join(shards.datasets)}; say which one"
        )
    return shards[next(iter(shards.datasets)) if name is None else name]


def _rows(dataset: Dataset, split: str) -> NDArray[np.int64]:
    if not split:
        return np.arange(len(dataset.index))
    rows = np.flatnonzero(dataset.index.is_word("split", split))
    if not len(rows):
        held = ", ".join(
            f"{name or 'no split'} ({count:,})" for name, count in dataset.manifest.splits.items()
        )
        raise UsageError(
            f"{dataset.manifest.name} has no pictures in split {split!r}; it has {held}"
        )
    return rows
