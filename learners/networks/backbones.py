"""Backbones by name."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final, Literal, NamedTuple

import torch
from torch import nn

from learners.networks.base import Backbone
from learners.networks.conv4 import ConvNet4
from learners.networks.efficientnet84 import fix_borders
from learners.networks.mobilenetv1 import MobileNetV1
from learners.networks.resnet18 import ResNet18
from learners.networks.weights import load_weights
from pipeline.errors import SourceMissing, UsageError, first_line
from pipeline.pixels import IMAGENET, SYMMETRIC, PixelNormalisation

PRETRAINED: Final = "pretrained"
RANDOM: Final = "random"
TIMM: Final = "timm/"
HUB_FILE: Final = "model.safetensors"
HUB_SECONDS: Final = 10.0  # for one answer
EFFICIENTNET: Final = "tf_efficientnet_b0.aa_in1k"
"""timm's name for the network and the weights of the papers, which were trained with AutoAugment.

LITE's code fetches efficientnet-b0-355c32eb.pth, ORBIT's names tf_efficientnet_b0_aa-827b6e33.pth: the same, converted.
"""
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
FIXED_BORDERS: Final = "efficientnet_b0_84"
"""LITE's EfficientNet-B0 at 84 pixels; it sees pixels from -1 to 1, as in their code."""
ALIASES: Final = {"efficientnet_b0": EFFICIENTNET, FIXED_BORDERS: EFFICIENTNET}
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
    weights = None if weights in ("", RANDOM) else weights
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
        raise UsageError(
            f"{name} has no weights to fetch; name a file with --weights, or timm/{name} if timm has it, or "
            "--weights random, on features that mean nothing"
        )
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
    if fetch and name == FIXED_BORDERS:
        raise UsageError(
            f"{name} has no weights to fetch: those of its authors are models/efficientnet-b0_84.pt in "
            "https://github.com/cambridge-mlg/LITE; bring the file and name it with --weights"
        )
    try:
        if fetch:
            _check_hub(timm.get_pretrained_cfg(model))
        net = _create_for_any_size(timm, model, fetch=fetch)
        dim = int(net.head_hidden_size)
    except (OSError, RuntimeError) as error:
        if fetch:
            raise SourceMissing(_where_to_get(timm, model, error)) from error
        raise UsageError(f"timm does not make a backbone {name!r}: {first_line(error)}") from error
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"timm's {name!r} is no network from images to features: {first_line(error)}"
        ) from error
    cfg = net.pretrained_cfg
    names = cfg.get("classifier") or CLASSIFIER_NAMES
    normalisation = PixelNormalisation(tuple(cfg["mean"]), tuple(cfg["std"]))
    if name == FIXED_BORDERS:
        fix_borders(net)
        normalisation = SYMMETRIC
    return _NetworkParts(net, dim, normalisation, (names,) if isinstance(names, str) else tuple(names))


def _create_for_any_size(timm: ModuleType, model: str, *, fetch: bool) -> Any:
    """A network without its classifier; a transformer interpolates its positions to the size of the images."""
    try:
        return timm.create_model(model, num_classes=0, pretrained=fetch, dynamic_img_size=True)
    except TypeError:  # networks that take every size have no such argument
        return timm.create_model(model, num_classes=0, pretrained=fetch)


def usual_tag(name: str) -> str:
    """The tag of the weights that timm fetches for a model's name without one."""
    cfg = _import_timm(name).get_pretrained_cfg(name)
    return str(cfg.tag or "") if cfg is not None else ""


def _check_hub(cfg: Any) -> None:
    """Raise OSError at once where the hub cannot be reached; its own client tries again for a minute."""
    if cfg is None or not cfg.hf_hub_id:
        return
    from huggingface_hub import constants, try_to_load_from_cache  # noqa: PLC0415 - timm's

    if isinstance(try_to_load_from_cache(cfg.hf_hub_id, HUB_FILE), str):
        return
    request = urllib.request.Request(f"{constants.ENDPOINT}/{cfg.hf_hub_id}", method="HEAD")  # noqa: S310
    with urllib.request.urlopen(request, timeout=HUB_SECONDS):  # noqa: S310 - https
        pass


def _where_to_get(timm: ModuleType, model: str, error: Exception) -> str:
    """What to do where timm cannot fetch a model's weights: the file, its origin, size and hash."""
    cfg = timm.get_pretrained_cfg(model)
    hub = f"https://huggingface.co/{cfg.hf_hub_id}".rstrip("/") if cfg and cfg.hf_hub_id else ""
    origins = [f"{HUB_FILE} from {hub}" if hub else "", cfg.url if cfg and cfg.url else ""]
    if not any(origins):
        return f"{model} has no published weights; name a file with --weights, or --weights random"
    net = timm.create_model(model)
    megabytes = sum(tensor.numel() for tensor in net.state_dict().values()) * 4 / 1e6
    known = re.search(r"-([0-9a-f]{8,})\.", origins[1])
    digest = f", {Path(origins[1]).name}'s sha256 begins with {known[1]}" if known else ""
    return (
        f"the weights of {model} could not be fetched ({first_line(error)}). Bring the file and name it with "
        f"--weights FILE: {' or '.join(filter(None, origins))} (about {megabytes:.0f} MB{digest}). "
        "--weights random trains without, on features that mean nothing"
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
