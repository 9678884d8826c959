"""A learner to use, and the classifier that it makes of a few pictures, in four lines:

    learner = Learner.load("runs/pets")
    classifier = learner.adapt({"cat": ["cat1.jpg", "cat2.jpg"], "dog": "photos/dog"})
    probabilities = classifier(["what.jpg"])
    classifier.save("pets.safetensors")

Networks are put into eval mode when they come here and nothing changes them afterwards: threads may adapt
and ask at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from learners import checkpoint
from learners import runs as trained
from learners.heads.base import State
from learners.heads.linear import Linear
from learners.learner import CHUNK, Classifier, Passage, StagedLearner
from learners.methods.catalogue import About, Name, about, make
from learners.networks import Backbone
from learners.networks.backbones import PRETRAINED
from learners.use.pictures import Pictures, described, listed, pixels
from learners.use.support import support
from pipeline.errors import IntegrityError, UsageError

KIND: Final = "classifier"
SAME: Final = 1e-4  # of a probability, by how much two networks differ on a GPU


class Answer(NamedTuple):
    """The likeliest class of a picture."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True, eq=False)
class PortableClassifier:
    """Tells apart the classes that a learner was shown; needs neither the learner nor its run.

    Pictures are what `Pictures` says, of any size; they are read and asked about batch by batch.
    """

    inner: Classifier = field(repr=False)
    about: About
    classes: tuple[str, ...]

    def __call__(self, pictures: Pictures) -> Tensor:
        """Probabilities, n x way, on the CPU; a column for each of `classes`."""
        asked = listed(pictures)
        names = described(asked)
        found, what = [torch.empty(0, len(self.classes))], self.about
        for begin in range(0, len(asked), CHUNK):
            part = slice(begin, begin + CHUNK)
            images = pixels(asked[part], what.image_size, what.resizing, names[part])
            found.append(self.inner(images).cpu())
        return torch.cat(found)

    def classify(self, pictures: Pictures) -> list[Answer]:
        """The likeliest class of each picture."""
        best = self(pictures).max(1)
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        return [Answer(self.classes[label], probability) for probability, label in pairs]

    def save(self, path: str | Path) -> None:
        """Write one safetensors file with all that `load` needs, after a trial that it does."""
        tensors, parts = checkpoint.flatten(
            {
                "backbone": self.inner.learner.backbone.state_dict(),
                "head": self.inner.learner.head.state_dict(),
                "film": self.inner.film,
                "state": self.inner.state,
            }
        )
        values = {
            KIND: {"about": self.about.described(), "classes": [*self.classes], "parts": parts}
        }
        self._check(_restored(tensors, values, path, self._device()))
        checkpoint.save(path, tensors, values)

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "auto") -> PortableClassifier:
        """What `save` wrote; on the CPU it answers as before, bit for bit."""
        return _restored(*checkpoint.load(path), path, _place(device))

    def _device(self) -> torch.device:
        return next(self.inner.learner.backbone.parameters()).device

    def _check(self, other: PortableClassifier) -> None:
        """A learner of one's own may have a head or a network that its name does not give."""
        size = self.about.image_size
        probe = torch.arange(3 * size * size).remainder(251).to(torch.uint8).view(1, 3, size, size)
        if not torch.allclose(self(probe), other(probe), atol=SAME, equal_nan=True):
            raise UsageError(
                f"this classifier cannot be saved: it is not the {self.about.learner} with a "
                f"{self.about.backbone} that `about` says; only learners made by name can be had again"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """Adapts to pictures; what it has learned stays as it is."""

    net: nn.Module = field(repr=False)
    about: About

    @classmethod
    def load(cls, place: str | Path, device: str | torch.device = "auto") -> Learner:
        """From the folder of a run, or a checkpoint."""
        found = trained.load(place)
        return cls(found.net.to(_place(device)).eval(), found.about)

    @classmethod
    def of(cls, net: nn.Module, what: About, device: str | torch.device = "auto") -> Learner:
        """From a network; it is copied, so the original may go on learning."""
        return cls(deepcopy(net).to(_place(device)).eval(), what)

    @classmethod
    def pretrained(
        cls,
        backbone: str,
        *,
        weights: str | Path = PRETRAINED,
        learner: Name = "finetuner",
        image_size: int = 224,
        device: str | torch.device = "auto",
    ) -> Learner:
        """From a backbone's weights alone, without a run.

        weights: a file, or "pretrained" for timm's hub.
        learner: "finetuner" trains a linear layer in each task; "protonets" takes the nearest mean, is as
        often right, and knows no doubt: on features that were not trained for it, each answer is 100 % sure.
        """
        net = make(learner, backbone, weights=weights)
        return cls(net.to(_place(device)).eval(), about(net, learner, image_size))

    def adapt(
        self,
        images: Pictures | Mapping[str, Pictures],
        labels: Tensor | Sequence[int] | Sequence[str] | None = None,
        *,
        classes: Sequence[str] | None = None,
    ) -> PortableClassifier:
        """A classifier of the classes shown, any number of pictures of each.

        images: {class: pictures}, whose order is kept; a folder with a folder for each class; or pictures
        with `labels`: numbers from 0 (`classes` may name them), or names (sorted, or in the order of
        `classes`).
        """
        shown = support(images, labels, classes)
        found: Classifier = self.net.adapt(  # type: ignore[operator]
            shown.pixels(self.about.image_size, self.about.resizing),
            torch.tensor(shown.labels),
            len(shown.classes),
        )
        return _portable(found.learner, found.film, found.state, self.about, shown.classes)


def _portable(
    net: StagedLearner, film: State, state: State, what: About, classes: tuple[str, ...]
) -> PortableClassifier:
    """In eval mode. Tensors are laid out as they are after saving, on which the last bits depend."""
    film, state = (
        tuple(one.detach().clone(memory_format=torch.contiguous_format) for one in tensors)
        for tensors in (film, state)
    )
    return PortableClassifier(Classifier(net.eval(), film, state, Passage()), what, classes)


def _restored(
    tensors: Mapping[str, Tensor], values: Mapping[str, Any], source: object, device: torch.device
) -> PortableClassifier:
    """A classifier from what its file holds; `source` is the file."""
    if KIND not in values:
        raise IntegrityError(
            f"{source} holds no classifier; a run's checkpoint is for Learner.load"
        )
    said = values[KIND]
    what = About.from_described(said["about"], source)
    parts = checkpoint.unflatten(tensors, said["parts"])
    net = make(what.learner, what.backbone, normalisation=what.normalisation)
    head = net.head if isinstance(net, StagedLearner) else Linear()
    assert isinstance(net.backbone, Backbone)
    checkpoint.load_module(net.backbone, parts["backbone"], source)
    checkpoint.load_module(head, parts["head"], source)
    staged = StagedLearner(net.backbone, head).to(device)
    film, state = (tuple(one.to(device) for one in parts[name]) for name in ("film", "state"))
    return _portable(staged, film, state, what, tuple(said["classes"]))


def _place(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise UsageError(f"a device is cpu, cuda, cuda:1, ... or auto; got {device!r}") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"the device {device} needs a GPU that PyTorch can use, and it finds none")
    return place
