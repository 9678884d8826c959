"""A task, how its images pass through networks in chunks, and the classifier that a learner makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from learners.heads.base import Head, State, full_precision
from learners.networks import Backbone
from learners.networks.chunk_sizes import DEFAULT_CHUNK, ChunkSizes
from pipeline.errors import UsageError

CHANNELS_FIRST = (0, 3, 1, 2)
PADDED_SIZES = 4  # of a chunk's remainder: the chunk, a half, a quarter and an eighth of it


class ArrivingImages(Protocol):
    """Images of which some are still on their way, such as one side of a loader's episode."""

    def __len__(self) -> int: ...

    def first(self, count: int) -> Tensor:
        """The first `count` images, uint8, n x 3 x S x S, as soon as they are there."""
        ...


Images: TypeAlias = Tensor | ArrivingImages


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """One episode: the whole support set, and queries in batches that are iterated once."""

    images: Images
    """The support set: uint8, N x 3 x S x S, in memory or arriving; `support` has them as one tensor."""
    labels: Tensor
    """One label for each support image, 0 to way - 1."""
    way: int
    queries: Iterable[tuple[Images, Tensor]]
    """Images and labels, in batches of any size; images may be arriving."""
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

    @property
    def support(self) -> Tensor:
        """All support images; waits for the last one."""
        return first_images(self.images)

    def joined_queries(self) -> tuple[Tensor, Tensor]:
        """All queries and their labels as one batch; waits for the last one."""
        images, labels = zip(*self.queries, strict=True)
        return torch.cat([first_images(batch) for batch in images]), torch.cat(labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkedPass:
    """How images pass through a network: how many at a time, grouped into which clips, in which precision."""

    clip: int = 1
    chunk: int = DEFAULT_CHUNK
    """Images whose graph is in memory at a time; values and gradients do not depend on it."""
    forward_chunk: int | None = None
    """Images at a time in passes without a graph; None: as many as `chunk`."""
    precision: torch.dtype | None = None
    """The dtype of autocast, such as torch.bfloat16, or None. Outputs are at least float32."""

    def __post_init__(self) -> None:
        if min(self.clip, *self.sizes) < 1:
            raise UsageError(f"chunks and clips hold at least one image, got {self}")

    @property
    def sizes(self) -> ChunkSizes:
        """Images in a chunk."""
        return ChunkSizes(self.chunk, self.chunk if self.forward_chunk is None else self.forward_chunk)

    def resized(self, sizes: ChunkSizes) -> ChunkedPass:
        """The same pass in other chunks."""
        return replace(self, chunk=sizes.graph, forward_chunk=sizes.forward)

    @property
    def units(self) -> int:
        """Images or clips in a chunk with a graph."""
        return max(self.chunk // self.clip, 1)

    @property
    def forward_units(self) -> int:
        """Images or clips in a chunk without a graph."""
        return max(self.sizes.forward // self.clip, 1)

    def run(self, network: nn.Module, images: Tensor, *arguments: object) -> Tensor:
        """Compute one vector per image, or per clip as the mean of its frames."""
        count = len(images)
        images = images.to(_device(network))
        if pads_chunks(network, images.device):
            images = self._padded(images)
        with self._autocast(images.device):
            vectors: Tensor = network(images, *arguments)
        vectors = wide(vectors[:count])
        if self.clip > 1:
            return vectors.reshape(-1, self.clip, vectors.shape[-1]).mean(1)
        return vectors

    @torch.no_grad()
    def whole(self, network: nn.Module, images: Images, *arguments: object) -> Tensor:
        """Compute the vectors of all images, each chunk once it is there, without a graph."""
        size = self.forward_units * self.clip
        chunks = split_images(images, [size] * max(-(-len(images) // size), 1))
        with self._autocast(_device(network)):  # weights are cast once for all chunks
            vectors = torch.cat([self.run(network, chunk, *arguments) for chunk in chunks])
        torch.clear_autocast_cache()
        return vectors

    def parts(self, images: Images, units: Tensor) -> Iterator[Tensor]:
        """Yield the images of the given units, in chunks."""
        images, frames = first_images(images), torch.arange(self.clip, device=units.device)
        for chunk in torch.split(units, self.units):
            rows = (chunk[:, None] * self.clip + frames).flatten()
            yield images[rows.to(images.device)]

    def _autocast(self, device: torch.device) -> torch.autocast:
        """Autocast, which keeps its casts of weights where no graph is made: without one they would cut a later graph."""
        enabled = self.precision is not None
        return torch.autocast(
            device.type, dtype=self.precision, enabled=enabled, cache_enabled=not torch.is_grad_enabled()
        )

    def _padded(self, images: Tensor) -> Tensor:
        """The images, and the last one again until they are a whole chunk, or a half, quarter or eighth of one."""
        units = self.units if torch.is_grad_enabled() else self.forward_units
        sizes = [-(-units // 2**halvings) * self.clip for halvings in range(PADDED_SIZES)]
        size = min((size for size in sizes if size >= len(images)), default=len(images))
        if size == len(images) or not len(images):
            return images
        return images[torch.arange(size, device=images.device).clamp_(max=len(images) - 1)]


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


def split_images(images: Images, sizes: Iterable[int]) -> Iterator[Tensor]:
    """Yield chunks of so many images, each as soon as it is there; the last may have fewer."""
    begin = 0
    for size in sizes:
        yield first_images(images, begin + size)[begin:]
        begin += size


def first_images(images: Images, count: int | None = None) -> Tensor:
    """The first `count` images, or all, as soon as they are there."""
    if isinstance(images, Tensor):
        return images[:count]
    return images.first(len(images) if count is None else min(count, len(images)))


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


def check_pairs(images: Images, labels: Tensor) -> None:
    """Refuse support images that are no N x 3 x S x S, or without a label each."""
    shape = tuple(images.shape) if isinstance(images, Tensor) else (len(images), 3, "S", "S")
    if len(shape) != 4 or len(images) != len(labels):  # noqa: PLR2004 - N, channels, height, width
        raise UsageError(
            f"support images are N x 3 x S x S with a label each, got images of shape "
            f"{shape} and {len(labels)} labels"
        )


def pads_chunks(network: nn.Module, device: torch.device) -> bool:
    """Whether remainders are padded: where each new shape costs time, and images do not affect each other."""
    costly = device.type == "cuda" or getattr(network, "pads_chunks", False)
    return costly and not getattr(network, "mixes_images", False)


def _device(network: nn.Module) -> torch.device:
    first = next(chain(network.parameters(), network.buffers()), None)
    return torch.device("cpu") if first is None else first.device
