"""Learners by name: what a command line or a checkpoint says becomes a network, and the other way round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import torch
from torch import nn

from learners.methods.cnaps import CNAPs
from learners.methods.finetuner import FineTuner
from learners.methods.maml import MAML
from learners.methods.protonets import ProtoNets
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import backbone
from learners.networks.base import Backbone
from pipeline.errors import IntegrityError, UsageError, check_choice
from pipeline.pixels import Normalisation
from pipeline.records import SQUASHED, Filter, Resizing, Shape

Trainable = Literal["protonets", "protonets_cosine", "cnaps", "simple_cnaps", "maml"]
Name = Literal[
    "protonets", "protonets_cosine", "cnaps", "simple_cnaps", "maml", "finetuner", "finetuner_film"
]
MAKE: Final[Mapping[Name, Callable[[Backbone], nn.Module]]] = {
    "protonets": ProtoNets,
    "protonets_cosine": lambda net: ProtoNets(net, metric="cosine"),
    "cnaps": CNAPs,
    "simple_cnaps": SimpleCNAPs,
    "maml": MAML,
    "finetuner": FineTuner,
    "finetuner_film": lambda net: FineTuner(net, film=True, optimizer="adam"),
}
PROTOTYPES: Final[Mapping[str, Literal["euclidean", "cosine"]]] = {
    "protonets": "euclidean",
    "protonets_cosine": "cosine",
}
FILMED: Final = ("cnaps", "simple_cnaps", "finetuner_film")  # whose backbone has places for FiLM


@dataclass(frozen=True, kw_only=True, slots=True)
class About:
    """What a learner is, its weights apart; a checkpoint says it beside them."""

    learner: Name
    backbone: str
    image_size: int
    """Pixels of the images that it was trained on."""
    normalisation: Normalisation
    """Of pixels, as the backbone's weights want it."""
    resizing: Resizing = SQUASHED
    """How the pictures that it was trained on became squares."""

    def described(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_described(cls, values: Mapping[str, Any], source: object) -> About:
        """The inverse; `source` says in an error where the values are from."""
        try:
            mean, std = (_channels(part) for part in values["normalisation"])
            about = cls(
                learner=values["learner"], backbone=str(values["backbone"]),
                image_size=int(values["image_size"]), normalisation=Normalisation(mean, std),
                resizing=_resizing(values.get("resizing", SQUASHED)),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(
                f"{source} does not say which learner it is of: {error!r}"
            ) from error
        if about.learner not in MAKE:
            raise IntegrityError(
                f"{source} is of a learner {about.learner!r}, which this version does not know; it has "
                f"{', '.join(MAKE)}"
            )
        return about


def make(
    name: Name,
    backbone_name: str,
    *,
    weights: str | Path | None = None,
    normalisation: Normalisation | None = None,
    temperature: float | None = None,
    seed: int = 0,
) -> nn.Module:
    """A learner with its first weights, which depend on the seed; `weights` are the backbone's.

    temperature: of prototypes, if not the metric's own; a checkpoint keeps it.
    """
    check_choice(name, get_args(Name), "the learner")
    if temperature is not None and name not in PROTOTYPES:
        raise UsageError(f"a temperature is for {' and '.join(PROTOTYPES)}, not for {name}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = backbone(
            backbone_name, weights=weights or None, film=name in FILMED, normalisation=normalisation
        )
        if temperature is not None:
            return ProtoNets(net, metric=PROTOTYPES[name], temperature=temperature)
        return MAKE[name](net)


def about(learner: nn.Module, name: Name, image_size: int, resizing: Resizing = SQUASHED) -> About:
    """What a learner that `make` made is."""
    net = learner.backbone
    assert isinstance(net, Backbone)
    return About(
        learner=name, backbone=net.name, image_size=image_size, normalisation=net.normalisation,
        resizing=resizing,
    )  # fmt: skip


def _resizing(values: Sequence[str]) -> Resizing:
    shape, kind = values
    if shape not in get_args(Shape) or kind not in get_args(Filter):
        raise ValueError(f"pictures resized as {shape}, {kind}")
    return Resizing(shape, kind)  # type: ignore[arg-type]


def _channels(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
