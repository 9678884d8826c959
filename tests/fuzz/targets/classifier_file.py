"""Classifier files with right checksums: `PortableClassifier.load`, and what it answers; also as a run's checkpoint.

An input is JSON: the values of the file, and the kind and shape of each tensor that differs from the seed's.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from learners.checkpoint import flatten, pack
from learners.methods.catalogue import describe_learner, make_learner
from learners.runs import load_run
from learners.use.classifier import CLASSIFIER_KEY, Learner, PortableClassifier
from pipeline.errors import PipelineError
from tests.fuzz.foreign_files import written
from tests.fuzz.json_mutations import mutate_json
from tests.fuzz.targets.checkpoint_file import MARKERS
from tests.images import make_image

LEARNERS: Final = ("protonets", "simple_cnaps", "finetuner_film", "cnaps")
NAMES: Final = ("conv4", "resnet18", "efficientnet_b0", "", "resnet18.nonsense", "vit_giant_patch14_dinov2", "hf-hub:a/b",
                "timm/test_vit", "resnet18.a:b")  # fmt: skip
TEXTS: Final = (
    *NAMES,
    *LEARNERS,
    "maml",
    "finetuner",
    "blocks.*",
    "(a+)+",
    "a{9999999999999}",
    "(",
    "official",
    "batch",
)
DTYPES: Final = {str(dtype).removeprefix("torch."): dtype for dtype in (
    torch.float32, torch.float16, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool,
    torch.complex64, torch.float8_e4m3fn,
)}  # fmt: skip
LARGEST: Final = 1 << 22  # elements of a made tensor
SIZE: Final = 32  # pixels


@cache
def whole(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and values of a classifier's file."""
    net = make_learner(name, "conv4", seed=1)
    classifier = Learner.of(net, describe_learner(net, name, SIZE), "cpu").adapt(
        {"a": [make_image(1), make_image(2)], "b": make_image(3), "c": [make_image(4), make_image(5)]}
    )
    inner = classifier.inner
    tree = {
        "backbone": inner.backbone.state_dict(),
        "head": inner.head.state_dict(),
        "film": inner.film,
        "state": inner.state,
    }
    tensors, parts = flatten(tree)
    record = {"about": classifier.info.described(), "classes": [*classifier.classes], "parts": parts}
    return tensors, {CLASSIFIER_KEY: record}


def seeds() -> list[bytes]:
    return [json.dumps({"of": name, "values": whole(name)[1], "tensors": {}}).encode() for name in LEARNERS]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Change the values, and now and then a tensor."""
    try:
        spec = json.loads(data)
        tensors, _ = whole(spec["of"])
        if generator.random() < 0.4:
            name = generator.choice(
                [name for name in tensors if name.startswith((".state", ".film", ".head"))] or [*tensors]
            )
            shape = list(tensors[name].shape)
            change = generator.randrange(4)
            if change == 0 and shape:
                shape[generator.randrange(len(shape))] = generator.choice((0, 1, 2, 3, 5, 64, 70_000))
            elif change == 1:
                shape = generator.choice(
                    ([], [0], [1, *shape], [*shape, 1], [5, 1], [30_000, 1], [1, 30_000])
                )
            spec["tensors"][name] = [generator.choice([*DTYPES]), shape]
        else:
            record = spec["values"].get(CLASSIFIER_KEY)
            about = record.get("about") if isinstance(record, dict) else None
            if isinstance(about, dict) and generator.random() < 0.4:
                spec["values"][CLASSIFIER_KEY]["about"] = _mutate_about(about, generator)
            elif isinstance(record, dict) and generator.random() < 0.3:
                parts, marker = record["parts"], generator.choice(MARKERS)
                if generator.random() < 0.3 or not parts:
                    record["parts"] = marker
                else:
                    parts[generator.choice([*parts])] = marker
            else:
                spec["values"] = mutate_json(spec["values"], generator)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return random.Random(len(data)).choice(seeds())
    return json.dumps(spec).encode()


def _mutate_about(about: dict[str, Any], generator: random.Random) -> Any:
    texts = [name for name, value in about.items() if isinstance(value, str)]
    if texts and generator.random() < 0.5:
        return {**about, generator.choice(texts): generator.choice(TEXTS)}
    options = about.get("options")
    if isinstance(options, dict) and options and generator.random() < 0.5:
        name = generator.choice([*options])
        value = (
            generator.choice((*TEXTS, 0, -1, 3, 10**9, 0.5, 1e308))
            if generator.random() < 0.8
            else mutate_json(options[name], generator)
        )
        return {**about, "options": {**options, name: value}}
    return mutate_json(about, generator)


def check(data: bytes) -> None:
    try:
        spec = json.loads(data)
        tensors = {**whole(spec["of"])[0]}
        tensors |= {name: _made(*made) for name, made in spec["tensors"].items()}
        values = spec["values"]
        packed = pack(tensors, values, "input")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PipelineError):
        return  # no input
    path = written(packed)
    for use in (_classify, load_run):
        try:
            use(path)
        except PipelineError as problem:
            text = str(problem)
        else:
            text = str(path)
        assert path.name in text, text


def _classify(path: Path) -> None:
    classifier = PortableClassifier.load(path, "cpu")
    side = classifier.info.image_size
    if side <= 2 * SIZE:
        answers = classifier(torch.zeros(3, 3, side, side, dtype=torch.uint8))
        assert answers.shape == (3, len(classifier.classes))


def _made(dtype: str, shape: list[int]) -> Tensor:
    elements = 1
    for side in shape:
        elements *= max(int(side), 1)
    if elements > LARGEST:
        raise ValueError("a tensor that the input has no room for")
    return torch.zeros([int(side) for side in shape], dtype=DTYPES[dtype])
