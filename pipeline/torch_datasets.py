"""Shards as `torch.utils.data` datasets, for programs with samplers and DataLoaders of their own.

`EpisodeLoader` is faster. Few-shot samplers of other libraries draw from a `ClassDataset`:

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

from pipeline.decoders.base import DecodeJob
from pipeline.decoders.fill import PixelFiller
from pipeline.episodes import Sampler
from pipeline.errors import IntegrityError, UsageError, check_choice
from pipeline.index import Dataset
from pipeline.loader.loader import EpisodeLoader
from pipeline.shardset import ShardSet
from pipeline.store.local import SampleStore, locate_samples

HWC_TO_CHW = (2, 0, 1)


class ClassDataset(MapDataset[tuple[Any, int]]):
    """One dataset and split: `data[i]` is (image, label), the image uint8, 3 x size x size.

    Labels are 0, 1, ... for the classes of the split, in the order of the manifest. DataLoader reads a
    batch at once (`__getitems__`). It can be pickled, and works in DataLoader's workers however they start.
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
        """Open a dataset; this reads the index but no image.

        dataset: its name in the shard set; not needed if there is only one.
        split: train, validation or test; "" for all images.
        transform: applied to each image, in the worker.
        """
        opened = shards if isinstance(shards, ShardSet) else ShardSet.open(shards)
        self._dataset = _chosen_dataset(opened, dataset)
        name = self._dataset.manifest.name
        self._shards = replace(opened, datasets={name: self._dataset})  # all that travels to workers
        self._size = image_size
        self._transform = transform
        self._rows = _split_rows(self._dataset, split)
        locate_samples(self._dataset, image_size, self._rows[:0])  # is that size stored?
        self.class_ids, self.labels = np.unique(
            self._dataset.index["class_id"][self._rows], return_inverse=True
        )
        """The class id of each label in the dataset; the label of each image."""
        self._store: SampleStore | None = None
        self._process = 0

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        return self.__getitems__([position])[0]

    def __getitems__(self, positions: Sequence[int]) -> list[tuple[Any, int]]:
        """Read several images at once, as DataLoader does; a remote set's bytes are fetched in parallel."""
        valid = range(len(self))
        indices = [valid[position] for position in positions]  # IndexError beyond the end
        locations = locate_samples(self._dataset, self._size, self._rows[indices])
        pixels = torch.empty(len(indices), self._size, self._size, 3, dtype=torch.uint8)
        store = self._open_store()
        if len(indices) > 1:
            store.prefetch(locations)
        faults = PixelFiller(store).fill(DecodeJob(locations, pixels), 0, len(indices))
        if faults:
            raise IntegrityError(faults[0].reason)
        transform = self._transform
        images = (image.permute(HWC_TO_CHW) for image in pixels)
        return [
            (image if transform is None else transform(image), int(self.labels[index]))
            for image, index in zip(images, indices, strict=True)
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
        """The positions of each label's images; with these learn2learn need not read every image."""
        order = np.argsort(self.labels, kind="stable")
        ends = np.cumsum(np.bincount(self.labels))[:-1]
        return {label: part.tolist() for label, part in enumerate(np.split(order, ends))}

    def _open_store(self) -> SampleStore:
        """The store of this process: threads and locks do not survive a fork."""
        if self._store is None or self._process != os.getpid():
            self._store, self._process = self._shards.open_store(), os.getpid()
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}


class EpisodeTensors(NamedTuple):
    """One whole episode; images are uint8, n x 3 x size x size, labels int64."""

    support_images: torch.Tensor
    support_labels: torch.Tensor
    query_images: torch.Tensor
    query_labels: torch.Tensor


class EpisodeDataset(IterableDataset[EpisodeTensors]):
    """Whole episodes for `DataLoader(data, batch_size=None, num_workers=W)`.

    The episodes and their order are the same for any number of workers: each worker takes every W-th, and
    DataLoader takes from them in turn. Each pass goes from `start` to `stop`, or to the sampler's end.
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

        on_error, fast: as for `EpisodeLoader`, but without "mask": the tuple has no field for it.
        """
        check_choice(on_error, ("raise", "replace"), "on_error of an EpisodeDataset")
        self._shards, self._sampler = shards, sampler
        self._options: dict[str, Any] = {
            "image_size": image_size, "on_error": on_error, "fast": fast, "start": start,
        }  # fmt: skip
        self._start, self._stop, self._rank, self._world = start, stop, rank, world
        self._open_loader(rank, world).close()  # refuses now what would fail in a worker

    def __iter__(self) -> Iterator[EpisodeTensors]:
        worker = get_worker_info()
        number, workers, threads = (worker.id, worker.num_workers, 1) if worker else (0, 1, None)
        rank, world = self._rank + number * self._world, self._world * workers
        numbers = count() if self._stop is None else range(self._start + rank, self._stop, world)
        with self._open_loader(rank, world, threads) as loader:
            for _, episode in zip(numbers, loader, strict=False):
                support, query = episode.support, episode.query
                yield EpisodeTensors(support.images, support.labels, query.images, query.labels)

    def __len__(self) -> int:
        """The number of episodes in one pass; TypeError if it has no end."""
        try:
            end = len(self._sampler)  # type: ignore[arg-type]
        except TypeError:
            if self._stop is None:
                raise
            end = self._stop
        stop = end if self._stop is None else min(end, self._stop)
        return len(range(self._start + self._rank, stop, self._world))

    def _open_loader(self, rank: int, world: int, threads: int | None = None) -> EpisodeLoader:
        """A loader without H, as the support set is wanted in one piece."""
        return EpisodeLoader(
            self._shards, self._sampler, h=0, rank=rank, world=world, threads=threads, **self._options
        )


def _chosen_dataset(shards: ShardSet, name: str | None) -> Dataset:
    if name is None and len(shards) > 1:
        raise UsageError(
            f"{shards.root} holds {len(shards)} datasets, {', '.join(shards.datasets)}; say which one"
        )
    return shards[next(iter(shards.datasets)) if name is None else name]


def _split_rows(dataset: Dataset, split: str) -> NDArray[np.int64]:
    if not split:
        return np.arange(len(dataset.index))
    rows = np.flatnonzero(dataset.index.is_word("split", split))
    if not len(rows):
        held = ", ".join(
            f"{name or 'no split'} ({count:,})" for name, count in dataset.manifest.splits.items()
        )
        raise UsageError(f"{dataset.manifest.name} has no pictures in split {split!r}; it has {held}")
    return rows
