"""The command line of `train.py`: flags, a preset and a file of settings become a `TrainingConfig`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Final

from learners.training.config import TrainingConfig
from learners.training.preset_choice import PRESET_LIST, list_presets, with_preset
from pipeline.command import command_parser
from pipeline.errors import UsageError
from pipeline.settings import add_flags, given_flags, read_config, typed

TRAIN_EXAMPLES: Final = """\
  python train.py --preset list                                   the papers' runs, setting by setting
  python train.py --shards shards/md --preset lite-vtab-md        LITE's VTAB+MD run, as its code has it
  python train.py --shards shards/md --h 40                       the same network with our unbiased gradient
  python train.py --shards shards/md --resume runs/md             go on, bit for bit
  python train.py --shards shards/omniglot --learner protonets --backbone conv4 --image-size 28 \\
      --way 20 --shot 1 --query 5 --lr 0.001 --tasks 4000 --tasks-per-step 1 --rotate
  torchrun --nproc-per-node 4 train.py --shards shards/md         the same run on four GPUs
"""


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
    defaults = {f.name: f.default for f in fields(TrainingConfig)}
    if given.get("preset") == PRESET_LIST:
        sys.stdout.write(list_presets(defaults))
        raise SystemExit(0)
    if not resume and given.get("preset"):
        given = with_preset(given, defaults)
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
    movable = {
        "shards", "out", "tasks", "device", "decoder", "threads", "save_every", "ordered", "deterministic", "profile",
    }  # fmt: skip
    names = {f.name for f in fields(saved)} - movable
    differing = sorted(name for name in names if getattr(saved, name) != getattr(changed, name))
    if differing:
        raise UsageError(
            f"a run goes on with the settings it began with; {', '.join(differing)} differ. Start "
            f"another run with --out, or leave them out. What may change: {', '.join(sorted(movable))}"
        )
