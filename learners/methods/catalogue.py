"""Learners by name: makes them, and describes them for a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from learners.heads.discriminant import LinearDiscriminant
from learners.heads.logistic import DEFAULT_C, LogisticHead
from learners.learner import MetaLearner, StagedLearner
from learners.methods.cnaps import CNAPs
from learners.methods.descent import SupportDescent
from learners.methods.finetuner import FINETUNER_STEPS, FineTuner
from learners.methods.maml import MAML, MAML_STEPS, InnerRates
from learners.methods.options import DEFAULT_OPTIONS, DESCENT_OPTIONS, ENCODER_OPTIONS, LearnerOptions
from learners.methods.protonets import ProtoNets
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import backbone
from learners.networks.backbones import PRETRAINED, RANDOM
from learners.networks.base import Backbone
from learners.networks.set_encoder import SetEncoder
from pipeline.errors import IntegrityError, UsageError, check_choice
from pipeline.pixels import IMAGENET, SYMMETRIC, PixelNormalisation, is_usable
from pipeline.records import DEFAULT_RESIZE, ResizeMethod
from pipeline.settings import typed

LARGEST_IMAGE: Final = 1024
"""Pixels a side; the papers' are 84 and 224, and a file may not ask for all memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerEntry:
    """One learner of the catalogue."""

    make: Callable[[Backbone, LearnerOptions], MetaLearner]
    options: frozenset[str] = frozenset()
    """The fields of `LearnerOptions` that apply to it."""
    film: bool = False
    """Whether its backbone needs FiLM."""
    frozen: bool = False
    """Whether its backbone keeps its weights, so that these must be pretrained."""
    trainable: bool = True
    """Whether `train.py` can train it; the others adapt a backbone as it is."""
    prototypes: bool = False
    """Whether its head compares with class means, at a temperature."""

    @property
    def first_weights(self) -> str:
        """The backbone's weights where none are named: a frozen backbone never learns any."""
        return PRETRAINED if self.frozen else RANDOM

    def frozen_at_random(self, weights: str) -> bool:
        """Whether the backbone keeps random weights, so that its features mean nothing."""
        return self.frozen and weights in ("", RANDOM)


def _make_cnaps(net: Backbone, options: LearnerOptions) -> CNAPs:
    return CNAPs(net, encoder=_set_encoder(net, options))


def _make_simple_cnaps(net: Backbone, options: LearnerOptions) -> SimpleCNAPs:
    return SimpleCNAPs(net, encoder=_set_encoder(net, options), one_shot=options.one_shot)


def _make_maml(net: Backbone, options: LearnerOptions) -> MAML:
    default = InnerRates()
    rates = InnerRates(
        head=options.inner_lr or default.head, backbone=options.inner_backbone_lr or default.backbone
    )
    descent = SupportDescent(options.inner_steps or MAML_STEPS, options.inner_weighting)
    return MAML(net, descent=descent, rates=rates, clamp=options.clamp or None)


def _make_finetuner(film: bool, optimizer: str, net: Backbone, options: LearnerOptions) -> FineTuner:  # noqa: FBT001
    descent = SupportDescent(options.inner_steps or FINETUNER_STEPS, options.inner_weighting)
    return FineTuner(
        net, film=film, optimizer=options.inner_optimizer or optimizer, lr=options.inner_lr or None,
        descent=descent,
    )  # fmt: skip


def _make_logreg(net: Backbone, options: LearnerOptions) -> StagedLearner:
    frozen = net.requires_grad_(requires_grad=False)
    return StagedLearner(frozen, LogisticHead(options.logistic_c or DEFAULT_C))


def _set_encoder(net: Backbone, options: LearnerOptions) -> SetEncoder:
    return SetEncoder(
        norm=options.encoder_norm,
        image_size=options.encoder_size or None,
        normalisation=NAMED_PIXELS.get(options.encoder_pixels, net.normalisation),
    )


_UNDESCRIBED: Final = "{} does not say which learner it is of"
NAMED_PIXELS: Final = {"symmetric": SYMMETRIC, "imagenet": IMAGENET}
LEARNERS: Final[Mapping[str, LearnerEntry]] = {
    "protonets": LearnerEntry(
        make=lambda net, _: ProtoNets(net), options=frozenset({"backbone_norm"}), prototypes=True
    ),
    "protonets_cosine": LearnerEntry(
        make=lambda net, _: ProtoNets(net, metric="cosine"), options=frozenset({"backbone_norm"}), prototypes=True
    ),
    "lda": LearnerEntry(
        make=lambda net, _: StagedLearner(net, LinearDiscriminant()), options=frozenset({"backbone_norm"})
    ),
    "logreg": LearnerEntry(make=_make_logreg, options=frozenset({"logistic_c"}), frozen=True, trainable=False),
    "cnaps": LearnerEntry(make=_make_cnaps, options=ENCODER_OPTIONS, film=True, frozen=True),
    "simple_cnaps": LearnerEntry(
        make=_make_simple_cnaps, options=ENCODER_OPTIONS | {"one_shot"}, film=True, frozen=True
    ),
    "maml": LearnerEntry(make=_make_maml, options=DESCENT_OPTIONS | {"inner_backbone_lr", "clamp"}),
    "finetuner": LearnerEntry(
        make=partial(_make_finetuner, False, "sgd"),  # noqa: FBT003
        options=DESCENT_OPTIONS | {"inner_optimizer"}, frozen=True, trainable=False,
    ),
    "finetuner_film": LearnerEntry(
        make=partial(_make_finetuner, True, "adam"),  # noqa: FBT003
        options=DESCENT_OPTIONS | {"inner_optimizer", "film_places"}, film=True, frozen=True, trainable=False,
    ),
}  # fmt: skip
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
    options: LearnerOptions = DEFAULT_OPTIONS

    def __post_init__(self) -> None:
        if not 0 < self.image_size <= LARGEST_IMAGE:
            raise UsageError(
                f"images of {self.image_size} px a side: its image_size is wrong, which is 1 to {LARGEST_IMAGE}"
            )
        if not is_usable(self.normalisation):
            raise UsageError(f"normalisation: deviations are positive numbers, got {self.normalisation.std}")

    def described(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_described(cls, values: object, source: object) -> LearnerInfo:
        """Read what `described` wrote; `source` names the file in errors."""
        info = typed(values, cls, _UNDESCRIBED.format(source))
        if info.learner not in LEARNERS:
            raise IntegrityError(
                f"{source} is of a learner {info.learner!r}, which this version does not know; it has "
                f"{', '.join(LEARNERS)}"
            )
        return info

    def make(self, source: object) -> MetaLearner:
        """Make the learner, with initial weights; `source` names the file in errors."""
        try:
            return make_learner(
                self.learner, self.backbone, normalisation=self.normalisation, options=self.options
            )
        except UsageError as error:  # the file contradicts itself, not the user
            raise IntegrityError(f"{_UNDESCRIBED.format(source)}: {error}") from error

    def blueprint(self, source: object) -> MetaLearner:
        """The learner without memory for its weights, to compare a file with before it is loaded."""
        with torch.device("meta"):
            return self.make(source)


def make_learner(  # noqa: PLR0913 - named and independent
    name: str,
    backbone_name: str,
    *,
    weights: str | Path | None = None,
    normalisation: PixelNormalisation | None = None,
    temperature: float | None = None,
    seed: int = 0,
    options: LearnerOptions = DEFAULT_OPTIONS,
) -> MetaLearner:
    """Make a learner with initial weights that depend on the seed; `weights` are the backbone's.

    temperature: of prototype heads; None is the metric's default. A checkpoint keeps it.
    """
    check_choice(name, tuple(LEARNERS), "the learner")
    entry = LEARNERS[name]
    if temperature is not None and not entry.prototypes:
        raise UsageError(f"a temperature is for {' and '.join(WITH_TEMPERATURE)}, not for {name}")
    options.check_for(name, entry.options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        film = entry.film and (options.film_places or True)
        net = backbone(
            backbone_name, weights=weights or None, film=film, norm=options.backbone_norm,
            normalisation=normalisation,
        )  # fmt: skip
        learner = entry.make(net, options)
        if temperature is not None and isinstance(learner, ProtoNets):
            learner.temperature = temperature
        return learner


def describe_learner(
    learner: MetaLearner,
    name: str,
    image_size: int,
    resizing: ResizeMethod = DEFAULT_RESIZE,
    options: LearnerOptions = DEFAULT_OPTIONS,
) -> LearnerInfo:
    """Describe a learner that `make_learner` made, with these options."""
    net = learner.backbone
    return LearnerInfo(
        learner=name, backbone=net.name, image_size=image_size, normalisation=net.normalisation,
        resizing=resizing, options=options,
    )  # fmt: skip
