"""Load a trained learner, adapt it to a few images, and keep the classifier, in four lines:

    learner = Learner.load("runs/pets")
    classifier = learner.adapt({"cat": ["cat1.jpg", "cat2.jpg"], "dog": "photos/dog"})
    probabilities = classifier(["what.jpg"])
    classifier.save("pets.safetensors")

Networks are put into eval mode when they are loaded and never change afterwards, so threads may adapt and
classify at the same time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from warnings import catch_warnings, simplefilter

import torch
from torch import Tensor

from learners import checkpoint
from learners.learner import MetaLearner
from learners.methods.catalogue import LearnerInfo, describe_learner, make_learner
from learners.networks.backbones import PRETRAINED
from learners.networks.chunk_sizes import DEFAULT_CHUNK, ChunkSizes, halving
from learners.networks.film import identity_film
from learners.processes import choose_device, out_of_memory_in_words
from learners.runs import load_run
from learners.task import ChunkedPass, Classifier
from learners.use.pictures import ImageInputs, image_names, list_images, load_pixels
from learners.use.support import collect_support
from pipeline.errors import IntegrityError, UsageError, first_line
from pipeline.layout import write_atomically
from pipeline.settings import typed

CLASSIFIER_KEY: Final = "classifier"
PROBABILITY_TOLERANCE: Final = 1e-4  # by which equal networks may differ on a GPU
CHUNK_PIXELS: Final = DEFAULT_CHUNK * 384**2  # in memory at a time; larger images come in smaller chunks
PROBE_COUNTS: Final = (2, 3)  # queries; shapes that fit both do not depend on their number


class Answer(NamedTuple):
    """The likeliest class of an image."""

    name: str
    probability: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierRecord:
    """The JSON values in a classifier's file."""

    about: dict[str, Any]
    """The `LearnerInfo`."""
    classes: tuple[str, ...]
    parts: dict[str, Any]
    """A `ClassifierParts`, flattened: where in it each tensor of the file belongs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierParts:
    """The tensors in a classifier's file."""

    backbone: dict[str, Tensor]
    head: dict[str, Tensor]
    film: tuple[Tensor, ...]
    state: tuple[Tensor, ...]
    """Of the head, after it has seen the support set."""


@dataclass(frozen=True, slots=True, eq=False)
class PortableClassifier:
    """Classifies images into the classes of one support set; needs neither the learner nor its run.

    Images come in any form of `ImageInputs` and any size; they are read and classified in batches.
    """

    inner: Classifier = field(repr=False)
    info: LearnerInfo
    classes: tuple[str, ...]

    def __call__(self, pictures: ImageInputs) -> Tensor:
        """Probabilities, n x way, on the CPU; a column for each of `classes`."""
        images = list_images(pictures)
        names = image_names(images)
        probabilities = [torch.empty(0, len(self.classes))]
        sizes = self.inner.passage.sizes
        chunk = sizes.forward
        for begin in range(0, len(images), chunk):
            part = slice(begin, begin + chunk)
            pixels = load_pixels(images[part], self.info.image_size, self.info.resizing, names[part])
            own, sizes = halving(partial(self._of_pixels, pixels), sizes)
            probabilities.append(own)
        return torch.cat(probabilities)

    def _of_pixels(self, pixels: Tensor, sizes: ChunkSizes) -> Tensor:
        """The probabilities of images that are tensors, in chunks of these sizes."""
        inner = replace(self.inner, passage=self.inner.passage.resized(sizes))
        return inner(pixels).cpu()

    def classify(self, pictures: ImageInputs) -> list[Answer]:
        """The likeliest class of each image."""
        best = self(pictures).max(1)
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [Answer(self.classes[label], probability) for probability, label in pairs]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with all that `load` needs, after checking that it is enough."""
        write_atomically(Path(path), self.packed(path))

    def packed(self, target: object) -> bytes:
        """The bytes of the file that `save` writes; `target` is its name for errors."""
        tensors, parts = checkpoint.flatten(
            {
                "backbone": self.inner.backbone.state_dict(),
                "head": self.inner.head.state_dict(),
                "film": self.inner.film,
                "state": self.inner.state,
            }
        )
        record = {"about": self.info.described(), "classes": [*self.classes], "parts": parts}
        device = next(self.inner.backbone.parameters()).device
        self._check_same(_restore_classifier(tensors, {CLASSIFIER_KEY: record}, target, device))
        return checkpoint.pack(tensors, {CLASSIFIER_KEY: record}, target)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "auto") -> PortableClassifier:
        """Read a file that `save` wrote; on the CPU the probabilities are the same, bit for bit."""
        return _restore_classifier(*checkpoint.load(path), path, choose_device(device))

    def _check_same(self, restored: PortableClassifier) -> None:
        """Refuse a learner of one's own, whose head or network `make_learner` cannot make again."""
        size = self.info.image_size
        probe = torch.arange(3 * size * size).remainder(251).to(torch.uint8).view(1, 3, size, size)
        if not torch.allclose(self(probe), restored(probe), atol=PROBABILITY_TOLERANCE, equal_nan=True):
            raise UsageError(
                f"this classifier cannot be saved: it is not the {self.info.learner} with a "
                f"{self.info.backbone} that its info names; only learners made by name can be loaded again"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """A learner that adapts to images; adapting does not change it."""

    net: MetaLearner = field(repr=False)
    info: LearnerInfo

    @classmethod
    def load(cls, place: str | Path, device: str | torch.device = "auto") -> Learner:
        """Load the learner of a run's folder, or of one checkpoint."""
        run = load_run(place)
        return cls(run.net.to(choose_device(device)).eval(), run.info)

    @classmethod
    def of(cls, net: MetaLearner, what: LearnerInfo, device: str | torch.device = "auto") -> Learner:
        """Use a copy of a network, so that the original may go on training."""
        return cls(deepcopy(net).to(choose_device(device)).eval(), what)

    @classmethod
    def pretrained(
        cls,
        backbone: str,
        *,
        weights: str | Path = PRETRAINED,
        learner: str = "finetuner",
        image_size: int = 224,
        device: str | torch.device = "auto",
    ) -> Learner:
        """Use a backbone's weights alone, without a run.

        weights: a file, or "pretrained" for timm's hub.
        learner: "finetuner" trains a linear layer in each task. "protonets" takes the nearest class mean: as
        often right, but on features that were not trained for it every probability is 0 or 1.
        """
        net = make_learner(learner, backbone, weights=weights)
        return cls(net.to(choose_device(device)).eval(), describe_learner(net, learner, image_size))

    def adapt(
        self,
        images: ImageInputs | Mapping[str, ImageInputs],
        labels: Tensor | Sequence[int] | Sequence[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
    ) -> PortableClassifier:
        """Make a classifier from a support set with any number of images of each class.

        images: {class: images}, in the order of the classes; a folder with a folder for each class; or
        images with `labels`: numbers from 0 (`classes` may name them), or names (sorted, or in the order
        of `classes`).
        """
        support = collect_support(images, labels, classes)
        pixels = support.pixels(self.info.image_size, self.info.resizing)
        labels, passage = torch.tensor(support.labels), _passage(self.info.image_size)

        def adapt(sizes: ChunkSizes) -> Classifier:
            return self.net.adapt(pixels, labels, len(support.classes), passage.resized(sizes))

        with out_of_memory_in_words("fewer or smaller images, or device='cpu', need less of it"):
            classifier, _ = halving(adapt, passage.sizes, fixed=self.net.chunks_decide)
        return _portable_classifier(classifier, self.info, support.classes)


def _portable_classifier(
    classifier: Classifier, info: LearnerInfo, classes: tuple[str, ...]
) -> PortableClassifier:
    """A classifier in eval mode, with its tensors laid out as they are in a file.

    The last bits of probabilities depend on the layout, and must not change when it is saved and loaded.
    """
    film, state = (
        tuple(one.detach().clone(memory_format=torch.contiguous_format) for one in tensors)
        for tensors in (classifier.film, classifier.state)
    )
    backbone, head = classifier.backbone.eval(), classifier.head.eval()
    inner = Classifier(backbone, head, film, state, _passage(info.image_size))
    return PortableClassifier(inner, info, classes)


def _passage(image_size: int) -> ChunkedPass:
    """Chunks of images of that many pixels a side."""
    return ChunkedPass(chunk=max(1, min(DEFAULT_CHUNK, CHUNK_PIXELS // image_size**2)))


def _restore_classifier(
    tensors: Mapping[str, Tensor], values: Mapping[str, Any], source: object, device: torch.device
) -> PortableClassifier:
    """The classifier that the contents of a file make; `source` is the file's name for errors."""
    if CLASSIFIER_KEY not in values:
        raise IntegrityError(f"{source} holds no classifier; a run's checkpoint is for Learner.load")
    record = typed(values[CLASSIFIER_KEY], ClassifierRecord, f"{source} is no whole classifier")
    info = LearnerInfo.from_described(record.about, source)
    unflattened = checkpoint.unflatten(tensors, record.parts, f"{source} is no whole classifier: parts")
    if not isinstance(unflattened, dict):
        raise IntegrityError(f"{source} is no whole classifier: parts: it holds no tensors by name")
    parts = typed(unflattened, ClassifierParts, f"{source} lacks tensors")
    _check_parts(parts, info.blueprint(source), record.classes, source)
    net = info.make(source)
    checkpoint.load_module(net.backbone, parts.backbone, source)
    checkpoint.load_module(net.head, parts.head, source)
    film = tuple(one.to(device, torch.float32) for one in parts.film)
    state = net.head.upgraded(tuple(one.to(device) for one in parts.state))
    classifier = Classifier(net.backbone.to(device), net.head.to(device), film, state, ChunkedPass())
    with _refusing_state(source):
        classifier.score(torch.zeros(1, classifier.backbone.dim, device=device))
    return _portable_classifier(classifier, info, record.classes)


def _check_parts(parts: ClassifierParts, net: MetaLearner, classes: tuple[str, ...], source: object) -> None:
    """Refuse tensors that do not fit a learner on the meta device; no memory is taken for any product."""
    checkpoint.check_fits(net.backbone, parts.backbone, source)
    checkpoint.check_fits(net.head, parts.head, source)
    like = torch.empty(0, device="meta")
    needed = identity_film(net.backbone.film_channels, like) if parts.film else ()
    if len(needed) != len(parts.film) or any(map(checkpoint.misfit, parts.film, needed)):
        raise IntegrityError(f"{source}: film: its tensors are not those of the {net.backbone.name}")
    with _refusing_state(source):
        state = net.head.upgraded(tuple(_on_meta(one) for one in parts.state))
        for count in PROBE_COUNTS:
            logits = net.head.logits(state, like.new_empty(count, net.backbone.dim))
            if logits.shape != (count, len(classes)):
                way = " x ".join(map(str, logits.shape[1:]))
                raise IntegrityError(f"{source}: classes: {len(classes)} names, and its state is of {way}")


def _on_meta(tensor: Tensor) -> Tensor:
    if tensor.dtype not in checkpoint.WEIGHT_DTYPES | checkpoint.COUNT_DTYPES:
        raise TypeError(f"it holds {tensor.dtype}")
    return tensor.to("meta")


@contextmanager
def _refusing_state(source: object) -> Iterator[None]:
    """Turn a head's failure at the state of a file into an error that names the file."""
    try:
        with catch_warnings():
            simplefilter("error")  # torch warns of shapes that it will refuse one day
            yield
    except (RuntimeError, ValueError, IndexError, TypeError, Warning) as error:
        raise IntegrityError(f"{source}: state: it does not fit the head: {first_line(error)}") from error
