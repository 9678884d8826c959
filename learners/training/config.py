"""The settings of a training run: flags become a frozen record, which is saved with the run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final, Literal

from learners.lite.engine import SamplerName
from learners.methods.catalogue import TRAINABLE, WITH_TEMPERATURE
from learners.runs import SETTINGS_FILE, read_settings
from learners.task import Precision
from pipeline.command import command_parser
from pipeline.errors import UsageError
from pipeline.layout import write_atomically
from pipeline.settings import add_flags, check_choices, flag_name, given_flags, read_config, setting, typed

TRAIN_EXAMPLES: Final = """\
  python train.py --shards shards/md --h 40                       the paper's VTAB+MD run
  python train.py --shards shards/md --resume runs/md             go on, bit for bit
  python train.py --shards shards/omniglot --learner protonets --backbone conv4 --image-size 28 \\
      --way 20 --shot 1 --query 5 --lr 0.001 --tasks 4000 --tasks-per-step 1 --rotate
  torchrun --nproc-per-node 4 train.py --shards shards/md         the same run on four GPUs
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """Defaults are the paper's VTAB+MD run: Simple CNAPs, EfficientNet-B0, 224 pixels, |H| = 40."""

    shards: str = setting(text="shard set: a folder or a URL")
    out: str = setting("", "folder of the run (runs/<shard set>-<learner>)")
    learner: str = setting("simple_cnaps", "what is trained", choices=TRAINABLE)
    backbone: str = setting("efficientnet_b0", "conv4, resnet18, ..., or any model of timm")
    weights: str = setting("", "the backbone's: a file, or 'pretrained' from timm's hub; '' is random")
    temperature: float = setting(0.0, "divides protonets' logits; 0 is the papers' 1, or 0.1 of cosines")
    fit_temperature: bool = setting(False, "take the one that fits the first episodes")
    image_size: int = setting(224, "pixels; a size that the shards hold")
    h: int = setting(40, "support images that carry gradient")
    sampler: SamplerName = setting("neyman", "how they are drawn, see learners/lite/engine.py")
    chunk: int = setting(40, "images in memory with their graph at a time")
    precision: Precision = setting("float32", "of the networks; the head has float32 always")
    compile: bool = setting(False, "networks by torch.compile: minutes once, less per step")
    datasets: tuple[str, ...] = setting(
        (), "datasets to train on (all that have training classes)", metavar="NAME"
    )
    way: int = setting(0, "classes of an episode; 0 varies way, shots and queries as Meta-Dataset does")
    shot: int = setting(5, "support images per class, with --way")
    query: int = setting(10, "query images per class, with --way; else at most")
    orbit: Literal["", "2021", "2022"] = setting(
        "", "ORBIT's tasks, as in the paper or as its code has them since"
    )
    mode: Literal["clu-ve", "cle-ve"] = setting("clu-ve", "with --orbit: clutter or clean videos as query")
    max_way: int = setting(50, "without --way")
    max_support: int = setting(500, "without --way")
    rotate: bool = setting(False, "turn each class of an episode by a random quarter turn")
    flip: bool = setting(False, "mirror random images")
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
    ordered: bool = setting(False, "several GPUs: the same bits for any number of them, slower")

    def __post_init__(self) -> None:
        check_choices(self)
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
        if self.fit_temperature and (self.temperature or self.learner not in WITH_TEMPERATURE):
            raise UsageError(
                f"--fit-temperature is for {' and '.join(WITH_TEMPERATURE)} without a --temperature of their own"
            )
        if self.lr <= 0 or self.backbone_lr_scale < 0:
            raise UsageError(f"learning rates are positive, got {self.lr}, {self.backbone_lr_scale}")

    @property
    def folder(self) -> Path:
        """Of the run."""
        name = Path(self.shards.rstrip("/")).name or "shards"
        return Path(self.out or f"runs/{name}-{self.learner}")

    def save(self, folder: Path) -> None:
        """Write `config.json`."""
        write_atomically(folder / SETTINGS_FILE, (json.dumps(asdict(self), indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> TrainingConfig:
        """The settings of a run."""
        return typed(read_settings(folder), cls, str(folder / SETTINGS_FILE))


def parse(argv: Sequence[str] | None = None) -> tuple[TrainingConfig, bool]:
    """The settings on a command line, and whether to go on with a run."""
    flags = command_parser("train", "Meta-train a learner on a shard set, with LITE.", TRAIN_EXAMPLES)
    flags.prog = "python train.py"
    flags.add_argument("--config", type=Path, metavar="FILE",
                       help="settings from a YAML or JSON file, such as a run's config.json; flags win")  # fmt: skip
    add_flags(flags, TrainingConfig)
    flags.add_argument("--resume", metavar="RUN", help="go on with this run and its settings")
    given = given_flags(flags.parse_args(argv))
    resume, file = given.pop("resume", ""), given.pop("config", None)
    if file is not None:
        given = {**read_config(file), **given}
    where = "the command line" if file is None else f"--config {file}"
    if not resume:
        if "shards" not in given:
            raise UsageError("--shards is needed: the shard set to train on")
        return typed(given, TrainingConfig, where, UsageError), False
    saved = TrainingConfig.read(Path(resume))
    changed = typed({**asdict(saved), **given, "out": resume}, TrainingConfig, where, UsageError)
    _check_resumable(saved, changed)
    return changed, True


def _check_resumable(saved: TrainingConfig, changed: TrainingConfig) -> None:
    """Refuse changes that would make another learner of the run."""
    movable = {"shards", "out", "tasks", "device", "decoder", "threads", "save_every", "ordered"}
    names = {f.name for f in fields(saved)} - movable
    differing = sorted(name for name in names if getattr(saved, name) != getattr(changed, name))
    if differing:
        raise UsageError(
            f"a run goes on with the settings it began with; {', '.join(differing)} differ. Start "
            f"another run with --out, or leave them out. What may change: {', '.join(sorted(movable))}"
        )


def _check_ranges(config: TrainingConfig) -> None:
    positive = ("image_size", "chunk", "shot", "query", "max_way", "tasks", "tasks_per_step",
                "validation_tasks", "save_every")  # fmt: skip
    for name in positive:
        if getattr(config, name) < 1:
            raise UsageError(f"{flag_name(name)} starts at 1, got {getattr(config, name)}")
    for name in ("h", "way", "validate_every", "seed", "threads", "lr_halve_every"):
        if getattr(config, name) < 0:
            raise UsageError(f"{flag_name(name)} starts at 0, got {getattr(config, name)}")
