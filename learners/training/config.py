"""The settings of a training run: flags become a frozen record, which is saved with the run."""

from __future__ import annotations

import json
from argparse import ArgumentParser, BooleanOptionalAction
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from learners.learner import Precision
from learners.lite.engine import Sampler
from learners.methods.catalogue import PROTOTYPES, Trainable
from learners.runs import SETTINGS_FILE, read_settings
from pipeline.command import parser
from pipeline.errors import IntegrityError, UsageError, check_choice
from pipeline.layout import write_whole

EXAMPLES: Final = """\
  python train.py --shards shards/md --h 40                       the paper's VTAB+MD run
  python train.py --shards shards/md --resume runs/md             go on, bit for bit
  python train.py --shards shards/omniglot --learner protonets --backbone conv4 --image-size 28 \\
      --way 20 --shot 1 --query 5 --lr 0.001 --tasks 4000 --tasks-per-step 1 --rotate
  torchrun --nproc-per-node 4 train.py --shards shards/md         the same run on four GPUs
"""


def setting(default: Any, text: str) -> Any:
    """A field with its `--help`."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Defaults are the paper's VTAB+MD run: Simple CNAPs, EfficientNet-B0, 224 pixels, |H| = 40."""

    shards: str = field(metadata={"help": "shard set: a folder or a URL"})
    out: str = setting("", "folder of the run (runs/<shard set>-<learner>)")
    learner: Trainable = setting("simple_cnaps", "what is trained")
    backbone: str = setting("efficientnet_b0", "conv4, resnet18, ..., or any model of timm")
    weights: str = setting(
        "", "the backbone's: a file, or 'pretrained' from timm's hub; '' is random"
    )
    temperature: float = setting(
        0.0,
        "divides protonets' logits; 0 is the papers' 1, or 0.1 of cosines",
    )
    fit_temperature: bool = setting(False, "take the one that fits the first episodes")  # noqa: FBT003
    image_size: int = setting(224, "pixels; a size that the shards hold")
    h: int = setting(40, "support images that carry gradient")
    sampler: Sampler = setting("neyman", "how they are drawn, see learners/lite/engine.py")
    chunk: int = setting(40, "images in memory with their graph at a time")
    precision: Precision = setting("float32", "of the networks; the head has float32 always")
    compile: bool = setting(False, "networks by torch.compile: minutes once, less per step")  # noqa: FBT003
    datasets: tuple[str, ...] = setting((), "datasets to train on (all that have training classes)")
    way: int = setting(
        0, "classes of an episode; 0 varies way, shots and queries as Meta-Dataset does"
    )
    shot: int = setting(5, "support images per class, with --way")
    query: int = setting(10, "query images per class, with --way; else at most")
    orbit: Literal["", "2021", "2022"] = setting(
        "", "ORBIT's tasks, as in the paper or as its code has them since"
    )
    mode: Literal["clu-ve", "cle-ve"] = setting(
        "clu-ve", "with --orbit: clutter or clean videos as query"
    )
    max_way: int = setting(50, "without --way")
    max_support: int = setting(500, "without --way")
    rotate: bool = setting(False, "turn each class of an episode by a random quarter turn")  # noqa: FBT003
    flip: bool = setting(False, "mirror random images")  # noqa: FBT003
    tasks: int = setting(10_000, "episodes to train on")
    tasks_per_step: int = setting(16, "episodes of an optimiser step")
    lr: float = setting(1e-3, "Adam's")
    backbone_lr_scale: float = setting(1.0, "of the backbone's learning rate, where it learns")
    lr_halve_every: int = setting(0, "episodes after which the learning rate is halved; 0 never")
    validate_every: int = setting(5_000, "episodes; 0 at the end only")
    validation_tasks: int = setting(200, "episodes of each validation dataset")
    save_every: int = setting(1_000, "episodes between checkpoints")
    seed: int = setting(0, "of episodes, H and first weights")
    device: str = setting("auto", "cpu, cuda, or auto")
    decoder: Literal["auto", "turbo", "dali"] = setting("auto", "of JPEG")
    threads: int = setting(0, "that decode; 0 as many as there are cores")
    ordered: bool = setting(False, "several GPUs: the same bits for any number of them, slower")  # noqa: FBT003

    def __post_init__(self) -> None:
        for name, known in _choices().items():
            check_choice(getattr(self, name), known, f"--{name.replace('_', '-')}")
        _check_ranges(self)
        if self.tasks % self.tasks_per_step:
            raise UsageError(
                f"--tasks {self.tasks} is not a number of whole steps of {self.tasks_per_step}; take "
                f"{-(-self.tasks // self.tasks_per_step) * self.tasks_per_step}"
            )
        if self.orbit and self.way:
            raise UsageError("--orbit has a way and shots of its own; leave --way out")
        if self.compile and self.learner == "maml":
            raise UsageError("--compile is for learners with LITE; maml runs as it is")
        if self.temperature < 0:
            raise UsageError(f"--temperature is not negative, got {self.temperature}")
        if self.fit_temperature and (self.temperature or self.learner not in PROTOTYPES):
            raise UsageError(
                f"--fit-temperature is for {' and '.join(PROTOTYPES)} without a --temperature of their own"
            )
        if self.lr <= 0 or self.backbone_lr_scale < 0:
            raise UsageError(
                f"learning rates are positive, got {self.lr}, {self.backbone_lr_scale}"
            )

    @property
    def folder(self) -> Path:
        """Of the run."""
        name = Path(self.shards.rstrip("/")).name or "shards"
        return Path(self.out or f"runs/{name}-{self.learner}")

    def save(self, folder: Path) -> None:
        """Write `config.json`."""
        write_whole(folder / SETTINGS_FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> Config:
        """The settings of a run."""
        return cls.from_values(read_settings(folder))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Config:
        """From what `config.json` says."""
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise IntegrityError(
                f"the run has settings that this version does not know: {', '.join(unknown)}; use the "
                "version that wrote it"
            )
        return cls(**{**values, "datasets": tuple(values.get("datasets", ()))})


def parse(argv: Sequence[str] | None = None) -> tuple[Config, bool]:
    """The settings on a command line, and whether to go on with a run."""
    flags = parser("train", "Meta-train a learner on a shard set, with LITE.", EXAMPLES)
    flags.prog = "python train.py"
    add_flags(flags)
    flags.add_argument("--resume", metavar="RUN", help="go on with this run and its settings")
    given = vars(flags.parse_args(argv))
    resume = given.pop("resume")
    given = {name: value for name, value in given.items() if value is not None}
    if not resume:
        if "shards" not in given:
            raise UsageError("--shards is needed: the shard set to train on")
        return Config(**given), False
    saved = Config.read(Path(resume))
    values = {**asdict(saved), **given, "out": resume}
    movable = {"shards", "out", "tasks", "device", "decoder", "threads", "save_every", "ordered"}
    changed = {
        name: value for name, value in given.items()
        if name not in movable and value != getattr(saved, name)
    }  # fmt: skip
    if changed:
        raise UsageError(
            f"a run goes on with the settings it began with; {', '.join(sorted(changed))} differ. Start "
            f"another run with --out, or leave them out. What may change: {', '.join(sorted(movable))}"
        )
    return Config.from_values(values), True


def add_flags(flags: ArgumentParser) -> None:
    """One flag for each field; without a default, so that what was given can be told."""
    types = get_type_hints(Config)
    for f in fields(Config):
        kind = types[f.name]
        default = "" if f.default is MISSING else f" ({f.default})" if f.default != () else ""
        options: dict[str, Any] = {"help": f.metadata["help"] + default, "default": None}
        if kind is bool:
            options["action"] = BooleanOptionalAction
        elif get_origin(kind) is Literal:
            options["choices"] = get_args(kind)
        elif get_origin(kind) is tuple:
            options |= {"nargs": "+", "metavar": "NAME", "type": str}
        else:
            options |= {"type": kind, "metavar": kind.__name__.upper()}
        flags.add_argument(f"--{f.name.replace('_', '-')}", **options)


def _choices() -> dict[str, tuple[str, ...]]:
    types = get_type_hints(Config)
    return {name: get_args(kind) for name, kind in types.items() if get_origin(kind) is Literal}


def _check_ranges(config: Config) -> None:
    positive = ("image_size", "chunk", "shot", "query", "max_way", "tasks", "tasks_per_step",
                "validation_tasks", "save_every")  # fmt: skip
    for name in positive:
        if getattr(config, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} starts at 1, got {getattr(config, name)}")
    for name in ("h", "way", "validate_every", "seed", "threads", "lr_halve_every"):
        if getattr(config, name) < 0:
            raise UsageError(f"--{name.replace('_', '-')} starts at 0, got {getattr(config, name)}")
