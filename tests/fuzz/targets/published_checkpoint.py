"""Published checkpoints: `learners.convert`, from names, shapes and kinds of tensors to a learner, or to a refusal.

An input is JSON: the file's name, the flags, and the kind and shape of each tensor; the numbers are zeros.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from learners.convert.identify import GivenFlags, identify
from learners.convert.official_tensors import OfficialTensors
from learners.convert.translate import translate
from learners.methods.catalogue import make_learner
from pipeline.errors import PipelineError
from tests.fuzz.json_mutations import mutate_json
from tests.fuzz.mutations import mutate_bytes

LIMIT_MB = 1024  # a ResNet-18, twice, and its zeros
SECONDS = 30.0
DTYPES: Final = ("float32", "float16", "int64", "complex64", "bool", "float8_e4m3fn")
FILES: Final = ("x.pth", "orbit_cluve_protonets_resnet18_84.pth", "orbit_cleve_maml_x.pth", "meta-trained_84.pt",
                "orbit_cluve_cnaps_x.pth", "meta-trained_lite_224.pt")  # fmt: skip
PREFIXES: Final = ("feature_extractor.", "set_encoder.pre_pooling_fn.", "set_encoder.encoding_fn.", "feature_adapter.",
                   "classifier.linear.", "classifier.weight_processor.", "film_generator.", "set_encoder.encoder.",
                   "feature_adaptation_network.", "feature_adapter.layers.0.gammas.0.0")  # fmt: skip
LARGEST: Final = 1 << 24  # elements of a made tensor


@cache
def resnet() -> dict[str, list[Any]]:
    """The names of ORBIT's ResNet-18 for 84 pixels, which are torchvision's and ours."""
    state = make_learner("protonets", "resnet18_84").backbone.net.state_dict()
    return {f"feature_extractor.{name}": [str(one.dtype)[6:], [*one.shape]] for name, one in state.items()}


def seeds() -> list[bytes]:
    tensors = resnet()
    inputs = [
        {"file": FILES[1], "flags": {}, "tensors": tensors},
        {"file": FILES[3], "flags": {"image_size": 84}, "tensors": {"feature_extractor._conv_stem.weight": ["float32", [32, 3, 3, 3]], "set_encoder.pre_pooling_fn.x": ["float32", [1]]}},
    ]  # fmt: skip
    return [json.dumps(one).encode() for one in inputs]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Change names, shapes and kinds of a few tensors, the file's name or the flags."""
    try:
        spec = json.loads(data)
        chance = generator.random()
        name = generator.choice([*spec["tensors"]])
        if chance < 0.2:
            spec["tensors"].pop(name)
        elif chance < 0.4:
            spec["tensors"][generator.choice(PREFIXES) + name.rpartition(".")[2]] = spec["tensors"][name]
        elif chance < 0.7:
            spec["tensors"][name] = [
                generator.choice(DTYPES),
                generator.choice(([], [0], [1], [64], [64, 3, 5, 5], [2, 2])),
            ]
        elif chance < 0.75:
            spec["tensors"][name][0] = generator.choice(DTYPES)
        elif chance < 0.85:
            spec["file"] = generator.choice(FILES)
        else:
            spec["flags"] = {"learner": generator.choice(("maml", "cnaps", "finetuner", "simple_cnaps", ""))}
        return json.dumps(spec if generator.random() < 0.9 else mutate_json(spec, generator)).encode()
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return mutate_bytes(data, generator)


def check(data: bytes) -> None:
    try:
        spec = json.loads(data)
        tensors = {str(name): _made(*made) for name, made in spec["tensors"].items()}
        file = Path(str(spec["file"]))
        given = GivenFlags(
            **{name: value for name, value in spec["flags"].items() if name in asdict(GivenFlags())}
        )
        if not all(isinstance(value, str) or name == "image_size" for name, value in asdict(given).items()):
            return
        if not isinstance(given.image_size, int | None):
            return
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return  # no input
    try:
        found = identify(tensors, file, given)
        net = make_learner(
            found.learner, found.backbone, normalisation=found.official.normalisation, options=found.options
        )
        translate(OfficialTensors(tensors, file), found, net)
    except PipelineError:
        return
    assert all(tensor.isfinite().all() for tensor in net.state_dict().values())


def _made(dtype: str, shape: list[int]) -> Tensor:
    elements = 1
    for side in shape:
        elements *= max(side, 1)
    if elements > LARGEST or dtype not in DTYPES or not all(isinstance(side, int) for side in shape):
        raise ValueError("a tensor that the input has no room for")
    return torch.zeros(shape, dtype=getattr(torch, dtype))
