"""Training runs on disk: the learner in a checkpoint, the settings, and the datasets that were trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from learners import checkpoint
from learners.learner import MetaLearner
from learners.methods.catalogue import LEARNERS, LearnerInfo
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.index import Dataset
from pipeline.settings import read_json, typed
from pipeline.shardset import ShardSet

SETTINGS_FILE: Final = "config.json"
LAST_CHECKPOINT: Final = "last.safetensors"
BEST_CHECKPOINT: Final = "best.safetensors"
FAITHFUL: Final = "faithful"
"""The kind of all presets: they do what a published code does. A run without a preset has settings of our own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataIdentity:
    """What a dataset holds, wherever it lies: the same identity means the same episodes, bit for bit."""

    plan: str
    """The hash of its plan: the images by name, their classes and splits, sizes and encodings."""
    samples: int
    index: str
    """The sha256 of its index, which has the place, length and checksum of every stored image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunState:
    """The values of a checkpoint beside its tensors."""

    tasks: int = 0
    """Episodes that the weights have seen."""
    about: dict[str, Any] = field(default_factory=dict)
    """`LearnerInfo.described`."""
    state: Any = None
    """The structure of learner and optimiser, for `checkpoint.unflatten`."""
    best: dict[str, float] = field(default_factory=dict)
    """Validation accuracies of the best weights, by dataset."""
    validated: int = 0
    """Episodes at the last validation."""
    data: dict[str, DataIdentity] = field(default_factory=dict)
    """The datasets that the run trains and validates on; older checkpoints do not say."""
    chunks: tuple[int, int] | None = None
    """Images at a time with a graph and without one; older checkpoints do not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The settings of a run that others than `train.py` need."""

    shards: str
    datasets: tuple[str, ...] = ()
    orbit: str = ""
    h: int = 40
    sampler: str = "neyman"
    learner: str = ""
    weights: str = ""
    """What the backbone began with: a file, "pretrained" or "random"; "", of older runs, is random too."""
    preset: str = ""
    overridden: tuple[str, ...] = ()

    @property
    def frozen_random(self) -> bool:
        """Whether its backbone is frozen and began with random weights, so that its features mean nothing."""
        return self.learner in LEARNERS and LEARNERS[self.learner].frozen_at_random(self.weights)


@dataclass(frozen=True, slots=True, eq=False)
class TrainedRun:
    """A learner loaded from a checkpoint, on the CPU."""

    net: MetaLearner
    info: LearnerInfo
    tasks: int
    """Episodes that it was trained on."""
    file: Path


def load_run(place: str | Path) -> TrainedRun:
    """Load a checkpoint, or that of a run's folder: the best one if validation chose one, else the last."""
    file = _checkpoint_file(Path(place))
    state, info, trees = read_checkpoint(file)
    checkpoint.check_fits(info.blueprint(file), trees["learner"], file)
    net = info.make(file)
    checkpoint.load_module(net, trees["learner"], file)
    return TrainedRun(net, info, state.tasks, file)


def read_checkpoint(file: Path) -> tuple[RunState, LearnerInfo, dict[str, Any]]:
    """The values of a checkpoint, what its learner is, and the state of `learner` and `optimizer`."""
    tensors, values = checkpoint.load(file)
    if "classifier" in values:
        raise UsageError(f"{file} is a classifier that has adapted already; PortableClassifier.load uses it")
    state = typed(values, RunState, str(file))
    info = LearnerInfo.from_described(state.about, file)
    trees = checkpoint.unflatten(tensors, state.state, file)
    if not isinstance(trees, dict) or not isinstance(trees.get("learner"), dict):
        raise IntegrityError(f"{file} holds no learner's state; take an older checkpoint")
    return state, info, trees


def write_checkpoint(file: Path, state: RunState, trees: Mapping[str, Any]) -> None:
    """Write what `read_checkpoint` reads, completely or not at all."""
    tensors, values = checkpoint.flatten(trees)
    checkpoint.save(file, tensors, asdict(replace(state, state=values)))


def last_checkpoint(folder: Path) -> Path:
    """The checkpoint from which a run goes on."""
    file = folder / LAST_CHECKPOINT
    if not file.exists():
        raise SourceMissing(
            f"{folder} has no {LAST_CHECKPOINT}: the run ended before its first save; start it again by the command "
            "that it began with"
        )
    return file


def read_settings(folder: Path) -> dict[str, Any]:
    """The settings that `train.py` saved in a run's folder."""
    path = folder / SETTINGS_FILE
    values = read_json(path, f"{folder} is no training run: it has no {SETTINGS_FILE}")
    if not isinstance(values, dict):
        raise IntegrityError(f"{path} is damaged: it holds no settings by name")
    return values


def read_run_settings(folder: Path) -> RunSettings:
    """The settings of a run that others than `train.py` need."""
    values, names = read_settings(folder), {f.name for f in fields(RunSettings)}
    known = {name: value for name, value in values.items() if name in names}
    return typed(known, RunSettings, str(folder / SETTINGS_FILE))


def describe_preset(name: str, overridden: Sequence[str]) -> str:
    """A run's preset, its kind and what was overridden, for logs and notes."""
    changes = f", overridden: {', '.join(overridden)}" if overridden else ""
    return f"preset {name} ({FAITHFUL}){changes}"


def training_datasets(shards: ShardSet, names: Sequence[str], *, orbit: bool) -> Mapping[str, Dataset]:
    """The datasets that training episodes come from: those named, or all with a training split."""
    having = shards.with_split("train")
    if orbit:
        having = list(names[:1]) or ["orbit"]
    return {name: shards[name] for name in having if name in (names or having)}


def _checkpoint_file(place: Path) -> Path:
    if place.is_file():
        return place
    for name in (BEST_CHECKPOINT, LAST_CHECKPOINT):
        if (place / name).is_file():
            return place / name
    raise SourceMissing(
        f"{place} should be a checkpoint or the folder of a run with {BEST_CHECKPOINT} or {LAST_CHECKPOINT} in it, and "
        f"{'has neither' if place.is_dir() else 'is not there'}; python train.py makes one"
    )
