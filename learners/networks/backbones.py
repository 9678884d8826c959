"""Backbones by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, NamedTuple

import torch
from torch import nn

from learners.networks.base import Backbone
from learners.networks.conv4 import ConvNet4
from learners.networks.mobilenetv1 import MobileNetV1
from learners.networks.resnet18 import ResNet18
from learners.networks.weights import load_weights
from pipeline.errors import SourceMissing, UsageError
from pipeline.pixels import IMAGENET, SYMMETRIC, PixelNormalisation

PRETRAINED: Final = "pretrained"
TIMM: Final = "timm/"
EFFICIENTNET: Final = "tf_efficientnet_b0.in1k"
"""timm's name for the network, and for the weights without extra data, that the papers use."""
CLASSIFIER_NAMES: Final = ("fc", "classifier", "head")  # names of classifier layers


class _OwnNetwork(NamedTuple):
    """A network of this project: how it is made, given the norm, and the pixels its weights expect."""

    make: Callable[[str], nn.Module]
    normalisation: PixelNormalisation


class _NetworkParts(NamedTuple):
    net: nn.Module
    dim: int
    normalisation: PixelNormalisation
    heads: tuple[str, ...] = CLASSIFIER_NAMES


OWN_NETWORKS: Final = {
    "conv4": _OwnNetwork(ConvNet4, SYMMETRIC),
    "resnet18": _OwnNetwork(lambda _: ResNet18(kernel=7, pool=True), IMAGENET),
    "resnet18_84": _OwnNetwork(lambda _: ResNet18(kernel=5, pool=False), IMAGENET),
    "mobilenetv1_075": _OwnNetwork(lambda _: MobileNetV1(), SYMMETRIC),
}
ALIASES: Final = {"efficientnet_b0": EFFICIENTNET}
BACKBONE_NAMES: Final = (*OWN_NETWORKS, *ALIASES)


def backbone(
    name: str,
    *,
    weights: str | Path | None = None,
    film: bool | str = False,
    norm: Literal["example", "batch"] = "example",
    normalisation: PixelNormalisation | None = None,
) -> Backbone:
    """Make a backbone by name, in torch's channels_last format.

    name: one of `BACKBONE_NAMES`, which are the papers', or any model of timm; "timm/resnet18" is timm's where
    both have the name.
    weights: a file, or "pretrained" for what timm fetches from its hub; None draws them at random.
    film: True for FiLM where the papers have it, or a regular expression matched against names of norms.
    norm: "example", or "batch" as in the papers; see `Backbone`.
    normalisation: of pixels, if neither the file nor the name gives the right one.
    """
    if norm not in ("example", "batch"):
        raise UsageError(f"a backbone's norm is 'example' or 'batch', not {norm!r}")
    made = _own(name, norm, weights) if name in OWN_NETWORKS else _timm(name, weights)
    from_file = None
    if weights is not None and weights != PRETRAINED:
        from_file = load_weights(made.net, weights, made.heads)
    return Backbone(
        made.net.to(memory_format=torch.channels_last),
        name=name,
        dim=made.dim,
        normalisation=normalisation or from_file or made.normalisation,
        film=film,
        norm=norm,
    )


def _own(name: str, norm: str, weights: str | Path | None) -> _NetworkParts:
    if weights == PRETRAINED:
        raise UsageError(f"{name} has no weights to fetch; name a file, or timm/{name} if timm has it")
    net = OWN_NETWORKS[name].make(norm)
    dim = net.dim
    assert isinstance(dim, int)
    return _NetworkParts(net, dim, OWN_NETWORKS[name].normalisation)


def _timm(name: str, weights: str | Path | None) -> _NetworkParts:
    timm = _import_timm(name)
    model = ALIASES.get(name, name.removeprefix(TIMM))
    if not timm.is_model(model):
        close = ", ".join(timm.list_models(f"*{model.split('_')[0]}*")[:5]) or "nothing like it"
        raise UsageError(
            f"there is no backbone {name!r}: needed one of {', '.join(BACKBONE_NAMES)} or a model of timm's, "
            f"which has {close}"
        )
    fetch = weights == PRETRAINED
    try:
        net = timm.create_model(model, num_classes=0, pretrained=fetch)
    except (OSError, RuntimeError) as error:
        if not fetch:
            raise
        raise SourceMissing(
            f"the weights of {model} could not be fetched ({error}); give a file with --weights"
        ) from error
    cfg = net.pretrained_cfg
    names = cfg.get("classifier") or CLASSIFIER_NAMES
    return _NetworkParts(
        net,
        net.head_hidden_size,
        PixelNormalisation(tuple(cfg["mean"]), tuple(cfg["std"])),
        (names,) if isinstance(names, str) else tuple(names),
    )


def _import_timm(name: str) -> ModuleType:
    try:
        import timm  # noqa: PLC0415 - a large library that our own networks do without
    except ImportError as error:
        raise UsageError(
            f"the backbone {name!r} comes from timm, which is not installed: pip install timm; without "
            f"it there are {', '.join(OWN_NETWORKS)}"
        ) from error
    return timm
