"""How many images pass through a network at a time, and what happens where memory does not suffice for them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

import torch

from pipeline.errors import UsageError, first_line

DEFAULT_CHUNK: Final = 40  # images; the papers' batch
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class ChunkSizes(NamedTuple):
    """Images that pass through a network at a time."""

    graph: int = DEFAULT_CHUNK
    """In passes whose graph is kept for a backward pass."""
    forward: int = DEFAULT_CHUNK
    """In passes without a graph, which need a fraction of the memory."""

    def __str__(self) -> str:
        if self.graph == self.forward:
            return f"chunks of {self.graph} images"
        return f"chunks of {self.graph} images with a graph and of {self.forward} without"

    def halved(self) -> ChunkSizes:
        """Half of each, at least one image."""
        return ChunkSizes(*(max(size // 2, 1) for size in self))


def halving(
    compute: Callable[[ChunkSizes], Result], sizes: ChunkSizes, *, fixed: bool = False
) -> tuple[Result, ChunkSizes]:
    """Compute in chunks of these sizes, halved each time that memory runs out; return the sizes that fitted, too.

    Each try starts from the beginning: `compute` undoes first what the try before it left.
    fixed: the sizes decide what comes out, so that torch's error is raised instead.
    """
    while True:
        try:
            return compute(sizes), sizes
        except torch.OutOfMemoryError as error:
            if fixed:
                raise
            smaller = sizes.halved()
            if smaller == sizes:
                raise UsageError(
                    f"out of memory with one image at a time ({first_line(error)}); half precision, smaller images or "
                    "a smaller network need less"
                ) from error
            log.warning("out of memory with %s (%s); going on with %s", sizes, first_line(error), smaller)
        sizes = smaller
        gc.collect()  # the error's frames have gone by now, and this frees what they held
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
