"""The labels of a support set, checked once: whatever comes after may rely on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import UsageError, few

NAMED = 10  # classes that an error names; a thousand would hide the sentence


class SameSize(NamedTuple):
    """The classes with one number of support units."""

    shots: int
    classes: NDArray[np.int64]
    rows: NDArray[np.int64]
    """classes x shots: where the units of each class stand."""


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One label for each support unit (image or clip), 0 to way - 1, every class at least once."""

    values: NDArray[np.int64]
    way: int

    @classmethod
    def checked(cls, labels: torch.Tensor, way: int | None = None, clip: int = 1) -> Labels:
        """From one label per image. The `clip` frames of a clip follow one another and share theirs."""
        values = per_clip(labels, clip).cpu().numpy().astype(np.int64, copy=False)
        if not len(values):
            raise UsageError("a classifier needs support images, and the support set is empty")
        way = int(values.max()) + 1 if way is None else way
        outside = np.unique(values[(values < 0) | (values >= way)])
        if len(outside):
            raise UsageError(
                f"support labels are 0 to {way - 1} in a task of {way} classes, got also "
                f"{few(outside.tolist(), NAMED)}; number the classes of each task from 0"
            )
        missing = np.setdiff1d(np.arange(way), values)
        if len(missing):
            raise UsageError(
                f"every class needs a support image, and of {way} classes {few(missing.tolist(), NAMED)} have none; "
                "leave them out of the task or give each at least one image"
            )
        return cls(values, way)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Support units of each class."""
        return np.bincount(self.values, minlength=self.way)

    def averaging(self, like: torch.Tensor) -> torch.Tensor:
        """The way x N matrix whose product with the features is each class's mean.

        A product, and not `index_add`, because that one adds in another order each time on a GPU.
        """
        values = torch.from_numpy(self.values).to(like.device)
        chosen = values == torch.arange(self.way, device=like.device)[:, None]
        counts = torch.from_numpy(self.counts).to(like.device)
        return chosen.to(like.dtype) / counts[:, None]

    def by_count(self) -> Iterator[SameSize]:
        """Classes of equal size together, the smallest first."""
        order = np.argsort(self.values, kind="stable")
        starts = np.cumsum(self.counts) - self.counts
        for count in np.unique(self.counts):
            classes = np.flatnonzero(self.counts == count)
            rows = order[starts[classes][:, None] + np.arange(count)]
            yield SameSize(int(count), classes, rows)


def per_clip(labels: torch.Tensor, clip: int) -> torch.Tensor:
    """One label per clip from one label per image."""
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) % clip:
        raise UsageError(
            f"labels are whole numbers, one for each image, in whole clips of {clip}; got a tensor of "
            f"shape {tuple(labels.shape)} and type {labels.dtype}"
        )
    return labels[::clip]
