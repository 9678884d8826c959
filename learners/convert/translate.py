"""A published checkpoint becomes the state of our learner, tensor by tensor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from learners.convert.formats import EXTRACTOR
from learners.convert.identify import LINEAR_GENERATOR, OfficialLearner
from learners.convert.official_tensors import OfficialTensors
from learners.learner import MetaLearner
from learners.networks.film import TENSORS_PER_PLACE, FilmGenerator, film_places
from learners.networks.weights import COUNTER, usual_names

BACKBONE: Final = "backbone.net."  # before our names
PERCEPTRON: Final = ("first", "first_bias", "scale", "shift", "last", "last_bias")
PERCEPTRON_2021: Final = (
    "linear1.weight", "linear1.bias", "layernorm.weight", "layernorm.bias", "linear2.weight", "linear2.bias",
)  # fmt: skip
PERCEPTRON_2022: Final = ("0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias")
GENERATED_LAYERS: Final = {"weights": LINEAR_GENERATOR, "bias": "classifier.bias_processor."}
UNUSED: Final = re.compile(
    r"set_encoder\..*\.(running_mean|running_var|num_batches_tracked)"  # the batch's statistics are used instead
    r"|feature_extractor\.(_fc|fc|classifier|head)\.(weight|bias)"  # of ImageNet's classes
    r"|classifier\.linear\.(weight|bias)"  # of another task's classes
    r"|classifier\.(weight|bias|means|precisions|task_mean|task_precision)"  # a task's, since 2022
)


class _FilmTensor(NamedTuple):
    """Where one gamma or beta is generated: the names of its perceptron, in order, and of its regulariser."""

    perceptron: Sequence[str]
    regulariser: str


def translate(tensors: OfficialTensors, found: OfficialLearner, learner: MetaLearner) -> list[str]:
    """Set all parameters and buffers of a learner from a file; return the names in it that nothing needs."""
    state = learner.state_dict()
    state |= _backbone_state(tensors, learner, state)
    state |= _encoder_state(tensors, found.format.encoder, state)
    state |= _head_state(tensors, state)
    if isinstance(learner.generator, FilmGenerator):
        places = [*film_places(learner.backbone.net, found.official.film_places or True)]
        names = [*_film_names(found, places)]
        sizes = [count for count in learner.backbone.film_channels for _ in range(TENSORS_PER_PLACE)]
        state |= _generator_state(tensors, learner.generator, names, sizes)
        if found.format.name == "orbit-2022":
            _move_biases(state, places, sizes)
    left = tensors.check(UNUSED, f"{found.learner} with {found.backbone} of {found.format.name}")
    learner.load_state_dict(state)
    return left


def _backbone_state(
    tensors: OfficialTensors, learner: MetaLearner, state: dict[str, Tensor]
) -> dict[str, Tensor]:
    official = [name.removeprefix(EXTRACTOR) for name in tensors.names() if name.startswith(EXTRACTOR)]
    theirs = {ours: name for name, ours in usual_names(official, learner.backbone.net).items()}
    own = {}
    for name, value in state.items():
        if name.startswith(BACKBONE):
            ours = name.removeprefix(BACKBONE)
            wanted = EXTRACTOR + theirs.get(ours, ours)
            if wanted in tensors or not name.endswith(COUNTER):  # torch before 0.4.1 had no counter
                own[name] = tensors.take(wanted, value)
    return own


def _encoder_state(tensors: OfficialTensors, before: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    own = {}
    for name, value in state.items():
        if layer := re.fullmatch(r"encoder\.blocks\.(\d+)\.(\d+\.\w+)", name):
            wanted = f"{before}layer{int(layer[1]) + 1}.{layer[2]}"
            if wanted in tensors or not name.endswith(COUNTER):
                own[name] = tensors.take(wanted, value)
    return own


def _head_state(tensors: OfficialTensors, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """CNAPs' two networks; prototypes at temperature 1."""
    own = {}
    for name, value in state.items():
        if layer := re.fullmatch(r"head\.(weights|bias)\.(\d+)\.(\w+)", name):
            number = int(layer[2]) // 2 + 1  # activations lie between
            own[name] = tensors.take(f"{GENERATED_LAYERS[layer[1]]}linear{number}.{layer[3]}", value)
        elif name == "head.temperature":
            own[name] = torch.ones_like(value)
    return own


def _film_names(found: OfficialLearner, places: Sequence[str]) -> Iterator[_FilmTensor]:
    """The names of gamma_1, beta_1, gamma_2, ... in our order of places."""
    before = found.format.generator
    if found.format.name == "orbit-2022":
        order = sorted(f"{place}.{kind}" for place in places for kind in ("weight", "bias"))
        for place in places:
            for kind in ("weight", "bias"):
                number = order.index(f"{place}.{kind}")
                names = [f"{before}generators.{number}.block.{part}" for part in PERCEPTRON_2022]
                yield _FilmTensor(names, f"{before}regularizers.{number}")
        return
    for place in places:
        if block := re.fullmatch(r"layer(\d)\.(\d)\.bn(\d)", place):  # ResNet: stage, block, convolution
            layer, inner = int(block[1]) - 1, f"{block[2]}.{int(block[3]) - 1}"
        else:
            layer, inner = places.index(place), "0"
        for kind in ("gamma", "beta"):
            generator = f"{before}layers.{layer}.{kind}_generators.{inner}."
            names = [generator + part for part in PERCEPTRON_2021]
            yield _FilmTensor(names, f"{before}layers.{layer}.{kind}_regularizers.{inner}")


def _generator_state(
    tensors: OfficialTensors, generator: FilmGenerator, names: Sequence[_FilmTensor], sizes: list[int]
) -> dict[str, Tensor]:
    """Our generator holds all first layers in one tensor, and the rows of all last layers in another."""
    own = {}
    for at, part in enumerate(PERCEPTRON):
        whole = generator.get_parameter(part).detach()
        rows = whole.unbind() if at < PERCEPTRON.index("last") else torch.split(whole, sizes)
        taken = [tensors.take(name.perceptron[at], row) for name, row in zip(names, rows, strict=True)]
        own[f"generator.{part}"] = torch.cat(taken).reshape(whole.shape)
    rows = torch.split(generator.regularisers.detach(), sizes)
    taken = [tensors.take(name.regulariser, row) for name, row in zip(names, rows, strict=True)]
    own["generator.regularisers"] = torch.cat(taken)
    return own


def _move_biases(state: dict[str, Tensor], places: Sequence[str], sizes: list[int]) -> None:
    """Write FiLM as ORBIT has it since 2022, in place: only the scale of a norm is multiplied by gamma.

    Ours is gamma * (weight * x + bias) + beta; theirs is gamma * weight * x + bias + beta. So a norm's bias
    becomes 0 and is added to the beta that its generator makes, whose regulariser becomes 1.
    """
    last, constant, scale = (
        torch.split(state[f"generator.{name}"], sizes) for name in ("last", "last_bias", "regularisers")
    )
    for at, place in enumerate(places):
        beta = TENSORS_PER_PLACE * at + 1
        bias = state[f"{BACKBONE}{place}.bias"]
        last[beta].mul_(scale[beta][:, None])
        constant[beta].mul_(scale[beta]).add_(bias)
        scale[beta].fill_(1)
        state[f"{BACKBONE}{place}.bias"] = torch.zeros_like(bias)
