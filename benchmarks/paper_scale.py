"""The LITE paper's studies at its own scale: the commands of each, what they need, and running them."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import train
from benchmarks.paper_runs import USUAL_H
from learners.evaluate import __main__ as evaluate
from learners.evaluate.protocols import MD_TEST, VTAB_GROUP_OF
from learners.methods.options import ENCODER_OPTIONS
from learners.report import __main__ as report
from learners.report.published import H_STUDY
from learners.runs import LAST_CHECKPOINT
from learners.study import __main__ as study
from learners.training.presets import PRESETS, VTAB_MD_TRAINING, VTAB_MD_VALIDATION
from pipeline.errors import PipelineError, SourceMissing, first_few
from pipeline.settings import flag_name
from pipeline.shardset import ShardSet

COMMANDS: Final[dict[str, Callable[[Sequence[str]], int]]] = {
    "train.py": train.main,
    "-m learners.evaluate": evaluate.main,
    "-m learners.report": report.main,
    "-m learners.study": study.main,
}
PRESET_LEARNER: Final = "simple_cnaps"  # that of LITE's own code
NOT_OF_PROTONETS: Final = ENCODER_OPTIONS | {"one_shot", "penalty", "learner"}
SUBSAMPLED_H: Final = (40, 100)
HOURS: Final = "about 20 hours of a 16-GB GPU for each training run of 10,000 tasks (the paper's figure)"


class PaperCommand(NamedTuple):
    """A command of Python and its words."""

    name: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"python {self.name} {shlex.join(self.words)}"


@dataclass(frozen=True, slots=True)
class PaperScale:
    """The studies on these shard sets, into a folder."""

    md: str
    vtab: str
    weights_84: Path
    """Of EfficientNet-B0, made for images of 84 pixels by the paper's authors."""
    out: Path

    def run(self, study_name: str, *, dry: bool) -> None:
        """Run a study, or only print its commands; an error says what is missing."""
        commands, missing = list(self.commands(study_name)), list(self.missing(study_name))
        print(*commands, f"# {HOURS}", *(f"# missing: {what}" for what in missing), sep="\n", flush=True)
        if dry:
            return
        if missing:
            raise SourceMissing(f"--scale paper needs data: {'; '.join(missing)}")
        for command in commands:
            COMMANDS[command.name](_resumed(command))

    def commands(self, study_name: str) -> Iterator[PaperCommand]:
        """The commands of a study, in order."""
        if study_name == "figure4":
            name, flags = _lite_run(USUAL_H)
            yield self._training(name, flags)
            files = [self.out / f"figure4{suffix}" for suffix in (".json", ".png")]
            yield _command(
                "-m learners.study", "--shards", self.md, "--run", self.out / name, "--split", "test",
                "--h", 10, 20, 40, 100, "--way", 20, "--shot", 25, "--out", files[0], "--png", files[1],
            )  # fmt: skip
            return
        results = []
        for name, flags in RUNS[study_name](self.weights_84):
            yield self._training(name, flags)
            for protocol, shards in (("md", self.md), ("vtab", self.vtab)):
                results.append(self.out / "results" / f"{name}-{protocol}")
                splits = ["--splits", "lite"] if protocol == "vtab" else []
                yield _command(
                    "-m learners.evaluate", "--shards", shards, "--checkpoint", self.out / name,
                    "--protocol", protocol, *splits, "--name", name, "--out", results[-1],
                )  # fmt: skip
        yield _command("-m learners.report", *results, "--out", self.out / study_name)

    def missing(self, study_name: str) -> Iterator[str]:
        """What the study needs and is not there, with what to do."""
        md = dict.fromkeys((*VTAB_MD_TRAINING, *VTAB_MD_VALIDATION, *MD_TEST))
        sets = [("md", self.md, tuple(md)), ("vtab --protocol both", self.vtab, tuple(VTAB_GROUP_OF))]
        for family, shards, needed in sets[: 1 if study_name == "figure4" else 2]:
            try:
                there = ShardSet.open(shards).datasets
            except PipelineError:
                there = {}
            if absent := [name for name in needed if name not in there]:
                yield (
                    f"{shards} lacks {len(absent)} of {len(needed)} datasets ({first_few(absent)}): "
                    f"python -m pipeline.build --dataset {family} --source DOWNLOADS --sizes 84 224 --out {shards}"
                )
        if study_name == "table2" and not self.weights_84.is_file():
            yield (
                f"{self.weights_84}: models/efficientnet-b0_84.pt of github.com/cambridge-mlg/LITE; name the file "
                "with --weights-84"
            )

    def _training(self, name: str, flags: Sequence[object]) -> PaperCommand:
        return _command("train.py", "--shards", self.md, *flags, "--out", self.out / name)


NamedFlags = Iterator[tuple[str, Sequence[object]]]
"""Runs: the name and the flags of train.py."""


def _table2_runs(weights_84: Path) -> NamedFlags:
    """The published rows: both learners by |H|, and 84 pixels."""
    at_84 = ("--weights", weights_84)
    for row in H_STUDY:
        if row.image_size == 84 and row.h is None:
            yield "simple_cnaps-84-all", ("--preset", "lite-vtab-md-84", *at_84)
        elif row.image_size == 84:
            small = ("--image-size", 84, "--backbone", "efficientnet_b0_84", *at_84)
            yield f"simple_cnaps-84-h{row.h}", ("--preset", "lite-vtab-md", *small, "--h", row.h)
        elif row.learner.startswith("ProtoNets"):
            yield f"protonets-224-h{row.h}", (*_protonets_flags(), "--h", row.h)
        else:
            yield _lite_run(row.h)


def _small_task_runs(_weights_84: Path) -> NamedFlags:
    yield _lite_run(USUAL_H)
    yield "simple_cnaps-224-small-tasks", ("--preset", "lite-small-tasks")


def _subsample_runs(_weights_84: Path) -> NamedFlags:
    for h in SUBSAMPLED_H:
        name, flags = _lite_run(h)
        yield name, flags
        yield f"{name}-subsample", (*flags, "--sampler", "subsample")


def _lite_run(h: int | None) -> tuple[str, Sequence[object]]:
    return f"simple_cnaps-224-h{h}", ("--preset", "lite-vtab-md", "--h", h)


RUNS: Final[dict[str, Callable[[Path], NamedFlags]]] = {
    "table2": _table2_runs,
    "small-tasks": _small_task_runs,
    "subsample": _subsample_runs,
}


def _protonets_flags() -> tuple[object, ...]:
    """LITE's code has no ProtoNets: its settings that apply to them, and the learning rates of ORBIT's code."""
    settings: dict[str, Any] = PRESETS["lite-vtab-md"].values(PRESET_LEARNER)
    of_orbit = PRESETS["orbit-2021"].values("protonets")
    settings |= {name: of_orbit[name] for name in ("lr", "backbone_lr_scale")}
    words: list[object] = ["--learner", "protonets"]
    for name, value in settings.items():
        if name in NOT_OF_PROTONETS or name == "h":
            continue
        if isinstance(value, bool):
            words.append(flag_name(name) if value else flag_name(f"no_{name}"))
        else:
            words += [flag_name(name), *(value if isinstance(value, tuple) else (value,))]
    return tuple(words)


def _command(name: str, *words: object) -> PaperCommand:
    return PaperCommand(name, tuple(map(str, words)))


def _resumed(command: PaperCommand) -> Sequence[str]:
    """The words of a command; those that continue a training run that is there."""
    if command.name == "train.py":
        folder = command.words[command.words.index("--out") + 1]
        if (Path(folder) / LAST_CHECKPOINT).exists():
            return ["--resume", folder]
    return command.words
