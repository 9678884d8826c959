"""Learners: what every method can do, and learners whose adaptation is a row of stages.

A staged learner has up to four stages, each a module or nothing:

    encoder    each support image becomes an embedding; the task's embedding is their mean
    generator  the task's embedding becomes FiLM
    backbone   images, and FiLM, become features
    head       support features become a classifier of features

`StagedLearner.forward` says it in five lines, as if all images fitted in memory at once. `learners.lite`
computes the same values and gradients where they do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from learners.heads.base import Head, full_precision
from learners.labels import Labels
from learners.lite.chunk_choice import free_memory, largest_chunk, probe_task
from learners.lite.engine import Lite, Outcome, backward
from learners.lite.live_memory import PeakMemory, peak_memory
from learners.networks import Backbone
from learners.networks.chunk_sizes import ChunkSizes
from learners.task import ChunkedPass, Classifier, Task, as_pixels, check_pairs, evaluating
from pipeline.errors import UsageError


class MetaLearner(nn.Module):
    """A learner: `adapt` makes a classifier of a support set, `gradient` trains on a task.

    A method of your own is a subclass that defines `fit` and `gradient`, or a `StagedLearner`, which has both.
    """

    inner_steps: int | None = None
    """Steps of gradient descent in each task; None where adapting is one pass forward."""
    compilable = False
    """Whether images pass through `networks` alone, each called as a whole."""

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
            raise UsageError("a set encoder and a FiLM generator need one another; give both or none")
        self.backbone = backbone
        self.head = head
        self.encoder = encoder
        self.generator = generator
        self._chunk_sizes: dict[object, ChunkSizes] = {}

    @property
    def networks(self) -> list[nn.Module]:
        """The networks that images pass through."""
        return [net for net in (self.backbone, self.encoder) if net is not None]

    def adapt(
        self,
        images: Tensor | Sequence[Image.Image],
        labels: Tensor | Sequence[int],
        way: int | None = None,
        passage: ChunkedPass | None = None,
    ) -> Classifier:
        """The classifier of a support set: uint8 images, or PIL images of one size, and labels from 0."""
        passage = passage or ChunkedPass()
        pixels, answers = as_pixels(images), torch.as_tensor(labels)
        check_pairs(pixels, answers)
        return self.fit(pixels, Labels.checked(answers, way, passage.clip), passage)

    def fit(self, images: Tensor, labels: Labels, passage: ChunkedPass) -> Classifier:
        """What `adapt` does, after images and labels have been checked."""
        raise NotImplementedError

    def gradient(
        self,
        task: Task,  # noqa: ARG002
        settings: Lite,  # noqa: ARG002
        rng: np.random.Generator,  # noqa: ARG002
        *,
        scale: float = 1.0,  # noqa: ARG002
    ) -> Outcome:
        """Add `scale` times the gradient of a task's loss to `.grad` of the parameters."""
        raise UsageError(f"{type(self).__name__} is not trained on tasks")

    @property
    def chunks_decide(self) -> bool:
        """Whether values depend on the chunks that images pass in, by more than rounding."""
        return any(getattr(net, "mixes_images", False) for net in self.networks)

    def chunk_sizes(
        self,
        image_size: int,
        *,
        precision: torch.dtype | None = None,
        training: bool = False,
        memory: float | None = None,
    ) -> ChunkSizes:
        """The chunks of `--chunk auto`, remembered for the image size; the first call on a GPU measures some passes.

        training: chunks for `gradient`, else for `adapt` and its classifiers.
        memory: bytes that passes may take; None is what a GPU has free, and no limit on a CPU.
        """
        device = next(self.parameters()).device
        key = (image_size, precision, training, memory, device)
        if key not in self._chunk_sizes:
            sizes = ChunkSizes()
            if not self.chunks_decide and (device.type == "cuda" or memory is not None):
                found = self.measured_chunks(
                    image_size,
                    free_memory(device) if memory is None else memory,
                    peak_memory(device),
                    precision=precision,
                    training=training,
                )
                sizes = found if device.type == "cuda" else ChunkSizes(*map(min, found, sizes))
            self._chunk_sizes[key] = sizes
        return self._chunk_sizes[key]

    def measured_chunks(
        self,
        image_size: int,
        memory: float,
        peak: PeakMemory,
        *,
        precision: torch.dtype | None = None,
        training: bool = False,
    ) -> ChunkSizes:
        """The largest chunks whose passes stay within so many bytes, by the measured peaks of a few images."""
        task = probe_task(image_size, next(self.parameters()).device)
        images = task.support

        def passage(chunk: int) -> ChunkedPass:
            return ChunkedPass(chunk=chunk, precision=precision)

        def gradient(chunk: int) -> None:
            settings = Lite(sampler="exact", chunk=chunk, precision=precision)
            with _gradients_set_aside(self):
                self.gradient(task, settings, np.random.default_rng(0))

        def adapt(chunk: int) -> None:
            self.adapt(images, task.labels, task.way, passage(chunk))

        def forward(chunk: int) -> None:
            classifier.embed(images, passage(chunk))
            if self.encoder is not None:
                passage(chunk).whole(self.encoder, images)

        classifier = self.adapt(images, task.labels, task.way, passage(1))
        without = largest_chunk(forward, memory, peak)
        if not training and self.inner_steps is None:
            return ChunkSizes(without, without)
        return ChunkSizes(largest_chunk(gradient if training else adapt, memory, peak), without)


class StagedLearner(MetaLearner):
    """A learner made of stages; a learner of your own is a subclass that hands its stages over here."""

    compilable = True

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
        run = ChunkedPass(clip=clip).run
        embedding = None if self.encoder is None else run(self.encoder, images).mean(0)
        film = self.film(embedding)
        features = run(self.backbone, images, film)
        state = self.head.fit(features, Labels.checked(labels, clip=clip))
        return self.head.logits(state, run(self.backbone, queries, film))

    @torch.no_grad()
    def fit(self, images: Tensor, labels: Labels, passage: ChunkedPass) -> Classifier:
        with evaluating(self):
            embedding = None
            if self.encoder is not None:
                mixed = getattr(self.encoder, "mixes_images", False)
                shown = _in_random_order(images, passage.clip) if mixed else images
                embedding = passage.whole(self.encoder, shown).mean(0)
            film = self.film(embedding)
            features = passage.whole(self.backbone, images, film)
            with full_precision(features.device):
                state = self.head.fit(features, labels)
        return Classifier(self.backbone, self.head, film, state, passage)

    def gradient(
        self, task: Task, settings: Lite, rng: np.random.Generator, *, scale: float = 1.0
    ) -> Outcome:
        return backward(self, task, settings, rng, scale=scale)


@contextmanager
def _gradients_set_aside(module: nn.Module) -> Iterator[None]:
    """Let a computation begin without gradients, and restore those that there were."""
    before = [(parameter, parameter.grad) for parameter in module.parameters()]
    module.zero_grad()
    try:
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient


def _in_random_order(images: Tensor, clip: int) -> Tensor:
    """The images, clip by clip, in an order that their number decides; support sets come sorted by class."""
    units = len(images) // clip
    order = torch.randperm(units, generator=torch.Generator().manual_seed(units)) * clip
    return images[(order[:, None] + torch.arange(clip)).flatten().to(images.device)]
