"""The labels of a support set, checked once, so that later stages can rely on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import UsageError, first_few
from pipeline.loader.uploads import upload


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One label for each support unit (image or clip), 0 to way - 1, every class at least once."""

    values: NDArray[np.int64]
    way: int

    @classmethod
    def checked(cls, labels: torch.Tensor, way: int | None = None, clip: int = 1) -> Labels:
        """Check one label per image; the `clip` adjacent frames of a clip share a label."""
        values = per_clip(labels, clip).cpu().numpy().astype(np.int64, copy=False)
        if not len(values):
            raise UsageError("a classifier needs support images, and the support set is empty")
        way = int(values.max()) + 1 if way is None else way
        outside = np.unique(values[(values < 0) | (values >= way)])
        if len(outside):
            raise UsageError(
                f"support labels are 0 to {way - 1} in a task of {way} classes, got also "
                f"{first_few(outside.tolist())}; number the classes of each task from 0"
            )
        missing = np.setdiff1d(np.arange(way), values)
        if len(missing):
            raise UsageError(
                f"every class needs a support image, and of {way} classes {first_few(missing.tolist())} have none; "
                "leave them out of the task or give each at least one image"
            )
        return cls(values, way)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def counts(self) -> NDArray[np.int64]:
        """The number of support units of each class."""
        return np.bincount(self.values, minlength=self.way)

    def averaging(self, like: torch.Tensor) -> torch.Tensor:
        """The way x N matrix whose product with the features gives the class means.

        A matrix product, because `index_add` adds in a different order each time on a GPU.
        """
        chosen = torch.from_numpy(self.values == np.arange(self.way)[:, None])
        (matrix,) = upload(chosen.to(like.dtype) / torch.from_numpy(self.counts)[:, None], device=like.device)
        return matrix


def per_clip(labels: torch.Tensor, clip: int) -> torch.Tensor:
    """Reduce one label per image to one per clip."""
    if labels.ndim != 1 or labels.is_floating_point() or len(labels) % clip:
        raise UsageError(
            f"labels are whole numbers, one for each image, in whole clips of {clip}; got a tensor of "
            f"shape {tuple(labels.shape)} and type {labels.dtype}"
        )
    return labels[::clip]
