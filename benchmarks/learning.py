"""Accuracy of trained learners on real data: shards, training, evaluation and a table, by one command.

    python -m benchmarks.learning omniglot     conv4 on hand-written characters, alphabets held out; then on
                                               data of other kinds
    python -m benchmarks.learning caltech      the same learner at 224 and 84 pixels; LITE against the full gradient
    python -m benchmarks.learning samplers     H's samplers at 84 pixels, three seeds each

Needs REAL_DATA (omniglot/images_background.zip, caltech101/, weights/). What exists already is not made
again, so the same command continues an interrupted run. Takes hours on two cores.
"""

from __future__ import annotations

import os
import sys
import tarfile
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Final

import train
from benchmarks.common import TableRow, markdown_table
from benchmarks.workloads import CALTECH
from learners.evaluate import __main__ as evaluate
from learners.evaluate.records import EvaluationResult
from learners.runs import LAST_CHECKPOINT
from pipeline.build import __main__ as build
from pipeline.errors import SourceMissing

MOBILENET_WEIGHTS: Final = "weights/mobilenetv1_075_224.safetensors"
TEST_CLASSES: Final = (0, 1)  # of every five classes in order of name
COMPARED_SAMPLERS: Final = ("neyman", "uniform", "paper-lite", "exact")
SEEDS: Final = (0, 1, 2)
LEARNER_OF_HEAD: Final = {"cosine": "protonets_cosine", "distances": "protonets"}


@dataclass(frozen=True)
class EvaluationQuestion:
    """An evaluation on 600 episodes of n-way k-shot."""

    suffix: str
    """What the row's name ends with."""
    flags: str
    """Flags of learners.evaluate."""
    shards: str = ""
    """The shard set, if not that of the run."""


@dataclass(frozen=True, kw_only=True)
class LearningRun:
    """One learner: how it is trained (not at all without `flags`), and how it is evaluated."""

    name: str
    shards: str
    learner: tuple[str, ...]
    """Flags that name the learner, to train it or to evaluate it untrained."""
    flags: tuple[str, ...] = ()
    questions: tuple[EvaluationQuestion, ...]


def omniglot(_data: Path) -> Iterator[LearningRun]:
    """Trained with more classes than it is evaluated with, as in the paper of ProtoNets."""
    held_out = "--split validation --query 5"
    unseen = "--split= --way 5 --query 10"
    yield LearningRun(
        name="omniglot",
        shards="omniglot",
        learner=split_words("--learner protonets --backbone conv4 --image-size 28"),
        flags=split_words(
            "--way 60 --shot 1 --query 5 --tasks 4000 --tasks-per-step 1 --rotate --sampler exact "
            "--lr-halve-every 1200 --validate-every 0 --chunk 400"
        ),
        questions=(
            EvaluationQuestion("", f"{held_out} --way 20 --shot 1"),
            EvaluationQuestion("-within", f"{held_out} --way 20 --shot 1 --within"),
            EvaluationQuestion("-within-5way", f"{held_out} --way 5 --shot 1 --within"),
            EvaluationQuestion("-unseen-1shot", f"{unseen} --shot 1", "unseen"),
            EvaluationQuestion("-unseen-5shot", f"{unseen} --shot 5", "unseen"),
        ),
    )


def caltech(data: Path) -> Iterator[LearningRun]:
    """Large images against small ones, LITE against the full gradient, with each head."""
    for head in LEARNER_OF_HEAD:
        for size in (224, 84):
            yield _caltech(data, size, head=head)
        for size, sampler in product((224, 84), ("neyman", "exact", "paper-lite")):
            yield _caltech(data, size, sampler, head=head)


def samplers(data: Path) -> Iterator[LearningRun]:
    """The samplers of H, with the same number of images."""
    for sampler, seed in product(COMPARED_SAMPLERS, SEEDS):
        yield _caltech(data, 84, sampler, seed)


def _caltech(data: Path, size: int, sampler: str = "", seed: int = 0, head: str = "cosine") -> LearningRun:
    """Not trained without a sampler. What is trained at 224 pixels is evaluated at 84, too."""
    trained = split_words(
        "--fit-temperature --way 20 --shot 5 --query 2 --tasks 80 --tasks-per-step 4 "
        f"--lr 0.00001 --flip --h 40 --sampler {sampler} --seed {seed}"
    )
    net = f"--learner {LEARNER_OF_HEAD[head]} --backbone mobilenetv1_075 --image-size {size}"
    tested = "--split test --way 20 --shot 5 --query 10"
    small = EvaluationQuestion("-asked-at-84", f"{tested} --image-size 84")
    return LearningRun(
        name=f"caltech-{head}-{size}-{f'{sampler}-{seed}' if sampler else 'frozen'}",
        shards="caltech",
        learner=(*split_words(net), "--weights", str(data / MOBILENET_WEIGHTS)),
        flags=trained if sampler else (),
        questions=(EvaluationQuestion("", tested), *([small] if sampler and size != 84 else ())),
    )


EXPERIMENTS: Final = {"omniglot": omniglot, "caltech": caltech, "samplers": samplers}


def main(argv: list[str] | None = None) -> int:
    """Build, train and evaluate what is missing, then print the table."""
    flags = ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("experiment", choices=EXPERIMENTS)
    flags.add_argument("--out", type=Path, default=Path("runs/learning"), help="the folder of all results")
    arguments = flags.parse_args(argv)
    data = Path(os.environ.get("REAL_DATA", ""))
    if not (data / CALTECH).exists():
        raise SourceMissing("REAL_DATA should name the folder with omniglot/, caltech101/, weights/")
    shard_sets = ShardSets(arguments.out / "shards", data)
    rows: list[TableRow] = []
    for run in EXPERIMENTS[arguments.experiment](data):
        for result in _evaluate_run(run, shard_sets, arguments.out):
            for score in result.scores:
                accuracy = f"{100 * score.value:.2f} ± {100 * (score.interval or 0):.2f}"
                row = {"run": result.name, "of": score.dataset, "accuracy, %": accuracy}
                rows.append({**row, "episodes": score.count})
    print(markdown_table(rows))
    return 0


def _evaluate_run(run: LearningRun, shard_sets: ShardSets, out: Path) -> Iterator[EvaluationResult]:
    """Train the learner if it is to be trained, then evaluate it."""
    trained, own = out / run.name, str(shard_sets.folder(run.shards))
    if (trained / LAST_CHECKPOINT).exists():
        train.main(["--resume", str(trained)])  # returns at once if it is complete
    elif run.flags:
        train.main(["--shards", own, "--out", str(trained), *run.learner, *run.flags])
    learner = ["--checkpoint", str(trained)] if run.flags else [*run.learner]
    for question in run.questions:
        name = run.name + question.suffix
        shards = str(shard_sets.folder(question.shards)) if question.shards else own
        evaluate.main(
            ["--shards", shards, *learner, "--protocol", "fixed", "--tasks", "600",
             *split_words(question.flags), "--out", str(out / "results" / name), "--name", name]
        )  # fmt: skip
        yield EvaluationResult.load(out / "results" / name)


@dataclass(frozen=True)
class ShardSets:
    """The shard sets, built when first used."""

    root: Path
    data: Path

    def folder(self, name: str) -> Path:
        """The folder of a shard set, which is complete."""
        folder = self.root / name
        if name == "omniglot":
            self._build(folder, "omniglot", "omniglot", "--sizes", "28", "--encode", "28=raw")
        elif name == "caltech":
            path = self.root / "caltech-splits.txt"
            write_caltech_splits(self.data, path, "test")
            splits = ("--split-by", str(path))
            self._build(folder, "folder", CALTECH, "--name", "caltech", "--sizes", "84", "224", *splits)
        else:
            small = ("--sizes", "28", "--encode", "28=raw")
            self._build(folder / "mnist", "mnist", "mnist", *small)
            self._build(folder / "caltech101", "folder", CALTECH, "--name", "caltech101", *small)
        return folder

    def _build(self, folder: Path, dataset: str, source: str, *flags: str) -> None:
        where = ("--source", str(self.data / source), "--out", str(folder))
        if build.main(["--dataset", dataset, *where, *flags, "--quiet"]):
            raise SystemExit(1)


def write_caltech_splits(data: Path, path: Path, held_out: str) -> None:
    """Write the split of each class: of every five, three to learn from and two held out."""
    with tarfile.open(data / CALTECH) as tar:
        files = [PurePosixPath(name) for name in tar.getnames() if name.endswith(".jpg")]
    lines = (
        f"{name} {held_out if number % 5 in TEST_CLASSES else 'train'}\n"
        for number, name in enumerate(sorted({file.parent.name for file in files}))
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(lines), encoding="utf-8")


def split_words(text: str) -> tuple[str, ...]:
    """Flags in the form of a command line."""
    return tuple(text.split())


if __name__ == "__main__":
    sys.exit(main())
