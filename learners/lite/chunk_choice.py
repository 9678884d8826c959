"""Chunks by themselves: the most images at a time that fit into the memory there is.

A pass takes memory for what does not depend on its images, and so much for each of them. Both follow from two passes
of a few images, measured with the learner's own networks. `CHUNK_CHOICES` are few, so that chunks of two machines or
of two runs are often the same, and with them the last bits of sums.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from learners.lite.live_memory import PeakMemory
from learners.task import Task

CHUNK_CHOICES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Images; 512 at 224 pixels should keep an H200 busy (docs/how-fast.md), and more gains nothing."""
PROBE_CHUNKS: Final = (4, 12)  # images of the two measured passes
MEMORY_SHARE: Final = 0.8
"""Of the memory there is, for passes; the rest is for features, the head, episodes decoded ahead, and fragments."""


def largest_chunk(run: Callable[[int], object], memory: float, peak: PeakMemory) -> int:
    """The largest chunk with which `run` stays within so many bytes; at least one image.

    run: passes the same images in chunks of a given size. It is called with two sizes, once more before to warm up.
    """
    few, more = PROBE_CHUNKS
    try:
        run(few)
        least, most = (peak(partial(run, chunk)) for chunk in PROBE_CHUNKS)
    except torch.OutOfMemoryError:
        return few  # which is halved as soon as it does not fit
    by_image = max((most - least) / (more - few), 1.0)
    fitting = few + (MEMORY_SHARE * memory - least) / by_image
    return max((chunk for chunk in CHUNK_CHOICES if chunk <= fitting), default=1)


def free_memory(device: torch.device) -> float:
    """The bytes of a GPU that nobody uses, or that its allocator holds for us."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def probe_task(image_size: int, device: torch.device) -> Task:
    """A task of noise, two classes, and as many support images and queries as the larger probe."""
    images = probe_images(image_size, device)
    labels = torch.arange(len(images)) % 2
    return Task(
        images=images, labels=labels, way=2, queries=[(images, labels.to(device))], query_count=len(images)
    )


def probe_images(image_size: int, device: torch.device) -> Tensor:
    """Noise, as uint8 images of the layout that the loader gives them."""
    shape = (PROBE_CHUNKS[-1], image_size, image_size, 3)
    noise = np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    return torch.from_numpy(noise).permute(0, 3, 1, 2).to(device)
