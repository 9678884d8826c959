"""A staged learner, a task, and how images pass through a learner's networks.

A learner has up to four stages, each a module or nothing:

    encoder    each support image becomes an embedding; the task's embedding is their mean
    generator  the task's embedding becomes FiLM
    backbone   images, and FiLM, become features
    head       support features become a classifier of features

`StagedLearner.forward` says it in five lines, as if all images fitted in memory at once. `learners.lite`
computes the same values and gradients where they do not.
"""

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
from learners.labels import Labels
from learners.networks import Backbone
from pipeline.errors import UsageError

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
CHUNK = 40  # images; the papers' batch
CHANNELS_FIRST = (0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Task:
    """One episode in memory: the support set whole, the queries in batches that are gone through once."""

    images: Tensor
    """Support, uint8, N x 3 x S x S."""
    labels: Tensor
    """One for each support image, 0 to way - 1."""
    way: int
    queries: Iterable[tuple[Tensor, Tensor]]
    """Images and labels, in batches of any size."""
    query_count: int
    """Images that the queries come to."""
    clip: int = 1
    """Frames per clip; they follow one another, in the support and in each batch of queries."""

    def __post_init__(self) -> None:
        if self.query_count < 1 or self.clip < 1:
            raise UsageError(
                f"a task needs a query image and clips of at least one frame, got {self.query_count} "
                f"queries and clips of {self.clip}"
            )
        _check_pairs(self.images, self.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """How images pass through a network: in chunks, in clips, in which precision."""

    clip: int = 1
    chunk: int = CHUNK
    """Images in memory with their graph at a time; values and gradients do not depend on it."""
    precision: torch.dtype | None = None
    """Of autocast, such as torch.bfloat16; None for none. What comes out is float32 at least."""

    def __post_init__(self) -> None:
        if min(self.clip, self.chunk) < 1:
            raise UsageError(f"chunks and clips hold at least one image, got {self}")

    @property
    def units(self) -> int:
        """Images or clips in a chunk."""
        return max(self.chunk // self.clip, 1)

    def run(self, network: nn.Module, images: Tensor, *arguments: object) -> Tensor:
        """One vector per image, or per clip: the mean of its frames.

        Whether autocast is on depends on `precision` alone, and it does not remember casts: those made
        without a graph would cut the graph of the next pass.
        """
        images = images.to(_device(network))
        autocast = torch.autocast(
            images.device.type,
            dtype=self.precision,
            enabled=self.precision is not None,
            cache_enabled=False,
        )
        with autocast:
            vectors: Tensor = network(images, *arguments)
        vectors = wide(vectors)
        if self.clip > 1:
            return vectors.reshape(-1, self.clip, vectors.shape[-1]).mean(1)
        return vectors

    @torch.no_grad()
    def whole(self, network: nn.Module, images: Tensor, *arguments: object) -> Tensor:
        """The vectors of all images, without a graph."""
        chunks = torch.split(images, self.units * self.clip)
        return torch.cat([self.run(network, chunk, *arguments) for chunk in chunks])

    def parts(self, images: Tensor, units: Tensor) -> Iterator[Tensor]:
        """The images of those units, in chunks."""
        frames = torch.arange(self.clip, device=units.device)
        for some in torch.split(units, self.units):
            rows = (some[:, None] * self.clip + frames).flatten()
            yield images[rows.to(images.device)]


class StagedLearner(nn.Module):
    """A learner made of stages; a learner of your own is a subclass that hands its stages over here."""

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        *,
        encoder: nn.Module | None = None,
        generator: nn.Module | None = None,
    ) -> None:
        """`generator`: from an embedding to a tuple of tensors; it may have a `penalty()`."""
        super().__init__()
        if (encoder is None) != (generator is None):
            raise UsageError(
                "a set encoder and a FiLM generator need one another; give both or none"
            )
        self.backbone = backbone
        self.head = head
        self.encoder = encoder
        self.generator = generator

    def film(self, embedding: Tensor | None) -> tuple[Tensor, ...]:
        """FiLM from the task's embedding; nothing without a generator."""
        if self.generator is None or embedding is None:
            return ()
        with full_precision(embedding.device):
            return tuple(self.generator(embedding))

    def penalty(self) -> Tensor | None:
        """What the loss adds for the generator's regularisers."""
        penalty = getattr(self.generator, "penalty", None)
        return None if penalty is None else penalty()

    def forward(self, images: Tensor, labels: Tensor, queries: Tensor, clip: int = 1) -> Tensor:
        """Logits of the queries, with one graph through everything."""
        run = Passage(clip=clip).run
        embedding = None if self.encoder is None else run(self.encoder, images).mean(0)
        film = self.film(embedding)
        features = run(self.backbone, images, film)
        state = self.head.fit(features, Labels.checked(labels, clip=clip))
        return self.head.logits(state, run(self.backbone, queries, film))

    @torch.no_grad()
    def adapt(
        self,
        images: Tensor | Sequence[Image.Image],
        labels: Tensor | Sequence[int],
        way: int | None = None,
        passage: Passage | None = None,
    ) -> Classifier:
        """A classifier of the classes shown: uint8 images, or pictures of one size, and labels from 0."""
        passage = passage or Passage()
        images, labels = as_pixels(images), torch.as_tensor(labels)
        _check_pairs(images, labels)
        known = Labels.checked(labels, way, passage.clip)
        with evaluating(self):
            embedding = None
            if self.encoder is not None:
                embedding = passage.whole(self.encoder, images).mean(0)
            film = self.film(embedding)
            features = passage.whole(self.backbone, images, film)
            with full_precision(features.device):
                state = self.head.fit(features, known)
        return Classifier(self, film, state, passage)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A learner that has seen a support set: images become the probabilities of its classes."""

    learner: StagedLearner
    film: tuple[Tensor, ...]
    state: State
    passage: Passage

    def __call__(self, images: Tensor | Sequence[Image.Image]) -> Tensor:
        """Probabilities, n x way; for clips one row per clip."""
        return self.logits(images).softmax(1)

    def logits(self, images: Tensor | Sequence[Image.Image]) -> Tensor:
        """Before the softmax."""
        return self.score(self.embed(images, self.passage))

    def embed(self, images: Tensor | Sequence[Image.Image], passage: Passage) -> Tensor:
        """Features; with a passage of `clip=1` those of frames, to be averaged as one likes."""
        with evaluating(self.learner):
            return passage.whole(self.learner.backbone, as_pixels(images), self.film)

    @torch.no_grad()
    def score(self, features: Tensor) -> Tensor:
        """Logits from features."""
        with evaluating(self.learner), full_precision(features.device):
            return self.learner.head.logits(self.state, features)


def as_pixels(images: Tensor | Sequence[Image.Image]) -> Tensor:
    """uint8 N x 3 x S x S from itself or from pictures."""
    if isinstance(images, Tensor):
        return images
    sizes = {picture.size for picture in images}
    if len(sizes) != 1:
        raise UsageError(
            f"pictures of one size make a tensor, and these {len(images)} have {len(sizes)} sizes; "
            "resize them first, to the size that the learner was trained on"
        )
    pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in images])
    return torch.from_numpy(pixels).permute(CHANNELS_FIRST)


def wide(tensor: Tensor) -> Tensor:
    """float32 at least."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """In eval mode; every part is as before afterwards."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in before.items():
            part.training = mode


def _check_pairs(images: Tensor, labels: Tensor) -> None:
    if images.ndim != 4 or len(images) != len(labels):  # noqa: PLR2004 - N, channels, height, width
        raise UsageError(
            f"support images are N x 3 x S x S with a label each, got images of shape "
            f"{tuple(images.shape)} and {len(labels)} labels"
        )


def _device(network: nn.Module) -> torch.device:
    first = next(chain(network.parameters(), network.buffers()), None)
    return torch.device("cpu") if first is None else first.device
