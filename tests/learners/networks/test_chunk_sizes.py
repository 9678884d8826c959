"""Chunks are halved until they fit in memory, and nothing else changes."""

from __future__ import annotations

import logging
import weakref

import pytest
import torch
from torch import nn

from learners.networks.chunk_sizes import ChunkSizes, halving
from pipeline.errors import UsageError


def fitting(most: int, tries: list[ChunkSizes], sizes: ChunkSizes) -> str:
    """A computation with memory for so many images with a graph."""
    tries.append(sizes)
    if sizes.graph > most:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand more")
    return "done"


def test_chunks_are_halved_until_they_fit_with_a_line_for_each_time(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[ChunkSizes] = []
    with caplog.at_level(logging.WARNING):
        result, sizes = halving(lambda sizes: fitting(12, tries, sizes), ChunkSizes(40, 100))
    assert (result, sizes) == ("done", ChunkSizes(10, 25))
    assert tries == [ChunkSizes(40, 100), ChunkSizes(20, 50), ChunkSizes(10, 25)]
    first, second = (record.getMessage() for record in caplog.records)
    assert first == (
        "out of memory with chunks of 40 images with a graph and of 100 without (CUDA out of memory. Tried to "
        "allocate 2.00 GiB.); going on with chunks of 20 images with a graph and of 50 without"
    )
    assert second.endswith("going on with chunks of 10 images with a graph and of 25 without")


def test_one_image_that_does_not_fit_is_an_error_with_a_cure() -> None:
    tries: list[ChunkSizes] = []
    cure = "with one image at a time .*; half precision, smaller images or a smaller network need less"
    with pytest.raises(UsageError, match=cure):
        halving(lambda sizes: fitting(0, tries, sizes), ChunkSizes(3, 8))
    assert tries[-1] == ChunkSizes(1, 1)


def test_chunks_that_decide_what_comes_out_stay() -> None:
    tries: list[ChunkSizes] = []
    with pytest.raises(torch.OutOfMemoryError):
        halving(lambda sizes: fitting(12, tries, sizes), ChunkSizes(), fixed=True)
    assert tries == [ChunkSizes()]


def test_what_a_try_held_is_free_before_the_next() -> None:
    held: weakref.WeakSet[nn.Module] = weakref.WeakSet()
    alive: list[int] = []

    def compute(sizes: ChunkSizes) -> None:
        alive.append(len(held))
        network = nn.Identity()
        network.hook = network.forward  # type: ignore[assignment]  # a circle, which only the collector frees
        held.add(network)
        if sizes.graph > 10:
            raise torch.OutOfMemoryError

    halving(compute, ChunkSizes())
    assert alive == [0, 0, 0]
