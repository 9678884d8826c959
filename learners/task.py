"""A task, how its images pass through networks in chunks, and the classifier that a learner makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from learners.heads.base import Head, State, full_precision
from learners.networks import Backbone
from pipeline.errors import UsageError

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
DEFAULT_CHUNK = 40  # images; the papers' batch
CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """One episode in memory: the whole support set, and queries in batches that are iterated once."""

    images: Tensor
    """The support set: uint8, N x 3 x S x S."""
    labels: Tensor
    """One label for each support image, 0 to way - 1."""
    way: int
    queries: Iterable[tuple[Tensor, Tensor]]
    """Images and labels, in batches of any size."""
    query_count: int
    """The number of query images in all batches."""
    clip: int = 1
    """Frames per clip; a clip's frames are adjacent, in the support set and in each batch of queries."""

    def __post_init__(self) -> None:
        if self.query_count < 1 or self.clip < 1:
            raise UsageError(
                f"a task needs a query image and clips of at least one frame, got {self.query_count} "
                f"queries and clips of {self.clip}"
            )
        check_pairs(self.images, self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkedPass:
    """How images pass through a network: how many at a time, grouped into which clips, in which precision."""

    clip: int = 1
    chunk: int = DEFAULT_CHUNK
    """Images whose graph is in memory at a time; values and gradients do not depend on it."""
    precision: torch.dtype | None = None
    """The dtype of autocast, such as torch.bfloat16, or None. Outputs are at least float32."""

    def __post_init__(self) -> None:
        if min(self.clip, self.chunk) < 1:
            raise UsageError(f"chunks and clips hold at least one image, got {self}")

    @property
    def units(self) -> int:
        """Images or clips in a chunk."""
        return max(self.chunk // self.clip, 1)

    def run(self, network: nn.Module, images: Tensor, *arguments: object) -> Tensor:
        """Compute one vector per image, or per clip as the mean of its frames.

        Autocast's cache of casts stays off: a cast cached without a graph would cut the graph of the next pass.
        """
        images = images.to(_device(network))
        autocast = torch.autocast(
            images.device.type, dtype=self.precision, enabled=self.precision is not None, cache_enabled=False
        )
        with autocast:
            vectors: Tensor = network(images, *arguments)
        vectors = wide(vectors)
        if self.clip > 1:
            return vectors.reshape(-1, self.clip, vectors.shape[-1]).mean(1)
        return vectors

    @torch.no_grad()
    def whole(self, network: nn.Module, images: Tensor, *arguments: object) -> Tensor:
        """Compute the vectors of all images, chunk by chunk, without a graph."""
        chunks = torch.split(images, self.units * self.clip)
        return torch.cat([self.run(network, chunk, *arguments) for chunk in chunks])

    def parts(self, images: Tensor, units: Tensor) -> Iterator[Tensor]:
        """Yield the images of the given units, in chunks."""
        frames = torch.arange(self.clip, device=units.device)
        for chunk in torch.split(units, self.units):
            rows = (chunk[:, None] * self.clip + frames).flatten()
            yield images[rows.to(images.device)]


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """The classifier of one support set: images become probabilities of its classes."""

    backbone: Backbone
    head: Head
    film: tuple[Tensor, ...]
    state: State
    passage: ChunkedPass

    def __call__(self, images: Tensor | Sequence[Image.Image]) -> Tensor:
        """Probabilities, n x way; for clips one row per clip."""
        return self.logits(images).softmax(1)

    def logits(self, images: Tensor | Sequence[Image.Image]) -> Tensor:
        """The logits of images."""
        return self.score(self.embed(images, self.passage))

    def embed(self, images: Tensor | Sequence[Image.Image], passage: ChunkedPass) -> Tensor:
        """The features of images; a passage with `clip=1` gives those of single frames."""
        with evaluating(self.backbone):
            return passage.whole(self.backbone, as_pixels(images), self.film)

    @torch.no_grad()
    def score(self, features: Tensor) -> Tensor:
        """The logits of features."""
        with evaluating(self.head), full_precision(features.device):
            return self.head.logits(self.state, features)


def as_pixels(images: Tensor | Sequence[Image.Image]) -> Tensor:
    """Stack PIL images of one size into uint8 N x 3 x S x S; a tensor is returned as it is."""
    if isinstance(images, Tensor):
        return images
    sizes = {image.size for image in images}
    if len(sizes) != 1:
        raise UsageError(
            f"pictures of one size make a tensor, and these {len(images)} have {len(sizes)} sizes; "
            "resize them first, to the size that the learner was trained on"
        )
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(CHANNELS_FIRST)


def wide(tensor: Tensor) -> Tensor:
    """Cast half precision to float32; leave float64 alone."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into eval mode, and restore the mode of each part afterwards."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


def check_pairs(images: Tensor, labels: Tensor) -> None:
    """Refuse support images that are no N x 3 x S x S, or without a label each."""
    if images.ndim != 4 or len(images) != len(labels):  # noqa: PLR2004 - N, channels, height, width
        raise UsageError(
            f"support images are N x 3 x S x S with a label each, got images of shape "
            f"{tuple(images.shape)} and {len(labels)} labels"
        )


def _device(network: nn.Module) -> torch.device:
    first = next(chain(network.parameters(), network.buffers()), None)
    return torch.device("cpu") if first is None else first.device
