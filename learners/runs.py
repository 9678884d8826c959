"""A training run's learner, for whoever uses it: its weights, and what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from learners import checkpoint
from learners.methods.catalogue import About, make
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.index import Dataset
from pipeline.shardset import ShardSet

SETTINGS_FILE: Final = "config.json"
LAST: Final = "last.safetensors"
BEST: Final = "best.safetensors"


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """On the CPU; nothing but the file was needed to make it."""

    net: nn.Module
    about: About
    tasks: int
    """Episodes that it was trained on."""
    file: Path


def load(place: str | Path) -> Trained:
    """A checkpoint, or a run's: its best one if validation chose one, else its last."""
    file = _file(Path(place))
    tensors, values = checkpoint.load(file)
    if "classifier" in values:
        raise UsageError(
            f"{file} is a classifier that has adapted already; PortableClassifier.load uses it"
        )
    about = About.from_described(values.get("about", {}), file)
    net = make(about.learner, about.backbone, normalisation=about.normalisation)
    state = checkpoint.unflatten(tensors, values["state"])
    checkpoint.load_module(net, state["learner"], file)
    return Trained(net, about, int(values["tasks"]), file)


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings of a run, as `train.py` saved them."""
    path = folder / SETTINGS_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceMissing(f"{folder} is no training run: it has no {SETTINGS_FILE}") from None
    except ValueError as error:
        raise IntegrityError(f"{path} is damaged: {error}") from error
    return values


def training_datasets(
    shards: ShardSet, names: Sequence[str], *, orbit: bool
) -> Mapping[str, Dataset]:
    """The datasets that a run's training episodes come from: those named, or all that can be trained on."""
    having = shards.with_split("train")
    if orbit:
        having = list(names[:1]) or ["orbit"]
    return {name: shards[name] for name in having if name in (names or having)}


def _file(place: Path) -> Path:
    if place.is_file():
        return place
    for name in (BEST, LAST):
        if (place / name).is_file():
            return place / name
    raise SourceMissing(
        f"{place} should be a checkpoint or the folder of a run with {BEST} or {LAST} in it, and "
        f"{'has neither' if place.is_dir() else 'is not there'}; python train.py makes one"
    )
