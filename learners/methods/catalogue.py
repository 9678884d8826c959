"""Learners by name: makes them, and describes them for a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from learners.learner import MetaLearner
from learners.methods.cnaps import CNAPs
from learners.methods.finetuner import FineTuner
from learners.methods.maml import MAML
from learners.methods.protonets import ProtoNets
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import backbone
from learners.networks.base import Backbone
from pipeline.constants import PIXEL_LIMIT
from pipeline.errors import IntegrityError, UsageError, check_choice
from pipeline.pixels import PixelNormalisation
from pipeline.records import DEFAULT_RESIZE, ResizeMethod
from pipeline.settings import typed


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerEntry:
    """One learner of the catalogue."""

    make: Callable[[Backbone], MetaLearner]
    film: bool = False
    """Whether its backbone needs FiLM."""
    trainable: bool = True
    """Whether `train.py` can train it; the others adapt a backbone as it is."""
    prototypes: bool = False
    """Whether its head compares with class means, at a temperature."""


LEARNERS: Final[Mapping[str, LearnerEntry]] = {
    "protonets": LearnerEntry(make=ProtoNets, prototypes=True),
    "protonets_cosine": LearnerEntry(make=partial(ProtoNets, metric="cosine"), prototypes=True),
    "cnaps": LearnerEntry(make=CNAPs, film=True),
    "simple_cnaps": LearnerEntry(make=SimpleCNAPs, film=True),
    "maml": LearnerEntry(make=MAML),
    "finetuner": LearnerEntry(make=FineTuner, trainable=False),
    "finetuner_film": LearnerEntry(
        make=partial(FineTuner, film=True, optimizer="adam"), film=True, trainable=False
    ),
}
TRAINABLE: Final = tuple(name for name, entry in LEARNERS.items() if entry.trainable)
WITH_TEMPERATURE: Final = tuple(name for name, entry in LEARNERS.items() if entry.prototypes)


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerInfo:
    """What a learner is, apart from its weights; stored in checkpoints."""

    learner: str
    backbone: str
    image_size: int
    """Side in pixels of the images it was trained on."""
    normalisation: PixelNormalisation
    """The pixel normalisation that the backbone's weights expect."""
    resizing: ResizeMethod = DEFAULT_RESIZE
    """How the images it was trained on were made square."""

    def described(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_described(cls, values: object, source: object) -> LearnerInfo:
        """Read what `described` wrote; `source` names the file in errors."""
        info = typed(values, cls, f"{source} does not say which learner it is of")
        if info.learner not in LEARNERS:
            raise IntegrityError(
                f"{source} is of a learner {info.learner!r}, which this version does not know; it has "
                f"{', '.join(LEARNERS)}"
            )
        if not 0 < info.image_size**2 <= PIXEL_LIMIT:
            raise IntegrityError(
                f"{source} is of images of {info.image_size} px a side: its image_size is wrong"
            )
        return info


def make_learner(
    name: str,
    backbone_name: str,
    *,
    weights: str | Path | None = None,
    normalisation: PixelNormalisation | None = None,
    temperature: float | None = None,
    seed: int = 0,
) -> MetaLearner:
    """Make a learner with initial weights that depend on the seed; `weights` are the backbone's.

    temperature: of prototype heads; None is the metric's default. A checkpoint keeps it.
    """
    check_choice(name, tuple(LEARNERS), "the learner")
    entry = LEARNERS[name]
    if temperature is not None and not entry.prototypes:
        raise UsageError(f"a temperature is for {' and '.join(WITH_TEMPERATURE)}, not for {name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = backbone(backbone_name, weights=weights or None, film=entry.film, normalisation=normalisation)
        learner = entry.make(net)
        if temperature is not None and isinstance(learner, ProtoNets):
            learner.temperature = temperature
        return learner


def describe_learner(
    learner: MetaLearner, name: str, image_size: int, resizing: ResizeMethod = DEFAULT_RESIZE
) -> LearnerInfo:
    """Describe a learner that `make_learner` made."""
    net = learner.backbone
    return LearnerInfo(
        learner=name, backbone=net.name, image_size=image_size, normalisation=net.normalisation,
        resizing=resizing,
    )  # fmt: skip
