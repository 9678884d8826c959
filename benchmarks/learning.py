"""What learners learn, on real data: shards, training, evaluation and a table, by one command.

    python -m benchmarks.learning omniglot     conv4 on hand-written characters, alphabets held out; then on
                                               data of other kinds
    python -m benchmarks.learning caltech      the same learner at 224 and 84 pixels; LITE against the full gradient
    python -m benchmarks.learning samplers     H's samplers at 84 pixels, three seeds each

Needs REAL_DATA (omniglot/images_background.zip, caltech101/, weights/). What is there already is not made
again, so an interrupted run is started again by the same command. Hours on two cores.
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
from benchmarks.loader_gpu import table
from learners.evaluate import __main__ as evaluate
from learners.evaluate.records import Evaluation
from learners.runs import LAST
from pipeline.build import __main__ as build
from pipeline.errors import SourceMissing

CALTECH: Final = "caltech101/101_ObjectCategories_50.tar"
WEIGHTS: Final = "weights/mobilenetv1_075_224.safetensors"
HELD_OUT: Final = (0, 1)  # of every five classes in order of name
SAMPLERS: Final = ("neyman", "uniform", "paper-lite", "exact")
SEEDS: Final = (0, 1, 2)
HEADS: Final = {"cosine": "protonets_cosine", "distances": "protonets"}


@dataclass(frozen=True)
class Question:
    """600 episodes of n-way k-shot."""

    suffix: str
    """Of the row's name."""
    flags: str
    """Of learners.evaluate."""
    shards: str = ""
    """If not those of the run."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One row: a learner, how it is trained (not at all without `flags`), what it is asked."""

    name: str
    shards: str
    learner: tuple[str, ...]
    """Flags that say what it is, for training and for an evaluation of what is not trained."""
    flags: tuple[str, ...] = ()
    questions: tuple[Question, ...]


def omniglot(_data: Path) -> Iterator[Run]:
    """Trained with more classes than it is asked about, as the paper of ProtoNets does."""
    asked = "--split validation --query 5"
    unseen = "--split= --way 5 --query 10"
    yield Run(
        name="omniglot",
        shards="omniglot",
        learner=words("--learner protonets --backbone conv4 --image-size 28"),
        flags=words(
            "--way 60 --shot 1 --query 5 --tasks 4000 --tasks-per-step 1 --rotate --sampler exact "
            "--lr-halve-every 1200 --validate-every 0 --chunk 400"
        ),
        questions=(
            Question("", f"{asked} --way 20 --shot 1"),
            Question("-within", f"{asked} --way 20 --shot 1 --within"),
            Question("-within-5way", f"{asked} --way 5 --shot 1 --within"),
            Question("-unseen-1shot", f"{unseen} --shot 1", "unseen"),
            Question("-unseen-5shot", f"{unseen} --shot 5", "unseen"),
        ),
    )


def caltech(data: Path) -> Iterator[Run]:
    """Large images against small ones, LITE against the full gradient, with each head."""
    for head in HEADS:
        for size in (224, 84):
            yield _caltech(data, size, head=head)
        for size, sampler in product((224, 84), ("neyman", "exact", "paper-lite")):
            yield _caltech(data, size, sampler, head=head)


def samplers(data: Path) -> Iterator[Run]:
    """The samplers at equal H."""
    for sampler, seed in product(SAMPLERS, SEEDS):
        yield _caltech(data, 84, sampler, seed)


def _caltech(data: Path, size: int, sampler: str = "", seed: int = 0, head: str = "cosine") -> Run:
    """Not trained without a sampler. What was trained at 224 pixels is asked at 84, too."""
    trained = words(
        "--fit-temperature --way 20 --shot 5 --query 2 --tasks 80 --tasks-per-step 4 "
        f"--lr 0.00001 --flip --h 40 --sampler {sampler} --seed {seed}"
    )
    net = f"--learner {HEADS[head]} --backbone mobilenetv1_075 --image-size {size}"
    asked = "--split test --way 20 --shot 5 --query 10"
    small = Question("-asked-at-84", f"{asked} --image-size 84")
    return Run(
        name=f"caltech-{head}-{size}-{f'{sampler}-{seed}' if sampler else 'frozen'}",
        shards="caltech",
        learner=(*words(net), "--weights", str(data / WEIGHTS)),
        flags=trained if sampler else (),
        questions=(Question("", asked), *([small] if sampler and size != 84 else ())),
    )


EXPERIMENTS: Final = {"omniglot": omniglot, "caltech": caltech, "samplers": samplers}


def main(argv: list[str] | None = None) -> int:
    """Make what is missing, then print the table."""
    flags = ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("experiment", choices=EXPERIMENTS)
    flags.add_argument("--out", type=Path, default=Path("runs/learning"), help="a folder for all")
    wish = flags.parse_args(argv)
    data = Path(os.environ.get("REAL_DATA", ""))
    if not (data / CALTECH).exists():
        raise SourceMissing(
            "REAL_DATA should name the folder with omniglot/, caltech101/, weights/"
        )
    made = Shards(wish.out / "shards", data)
    rows: list[dict[str, str | int]] = []
    for run in EXPERIMENTS[wish.experiment](data):
        for result in _results(run, made, wish.out):
            for score in result.scores:
                accuracy = f"{100 * score.value:.2f} ± {100 * (score.interval or 0):.2f}"
                row = {"run": result.name, "of": score.dataset, "accuracy, %": accuracy}
                rows.append({**row, "episodes": score.count})
    print(table(rows))
    return 0


def _results(run: Run, made: Shards, out: Path) -> Iterator[Evaluation]:
    trained, own = out / run.name, str(made.folder(run.shards))
    if (trained / LAST).exists():
        train.main(["--resume", str(trained)])  # ends at once if it had ended
    elif run.flags:
        train.main(["--shards", own, "--out", str(trained), *run.learner, *run.flags])
    what = ["--checkpoint", str(trained)] if run.flags else [*run.learner]
    for asked in run.questions:
        result, name = out / "results" / (run.name + asked.suffix), run.name + asked.suffix
        shards = str(made.folder(asked.shards)) if asked.shards else own
        evaluate.main(
            ["--shards", shards, *what, "--protocol", "fixed", "--tasks", "600",
             *words(asked.flags), "--out", str(result), "--name", name]
        )  # fmt: skip
        yield Evaluation.load(result)


@dataclass(frozen=True)
class Shards:
    """The shard sets, made when first asked for."""

    root: Path
    data: Path

    def folder(self, name: str) -> Path:
        """A whole shard set."""
        folder = self.root / name
        if name == "omniglot":
            self._build(folder, "omniglot", "omniglot", "--sizes", "28", "--encode", "28=raw")
        elif name == "caltech":
            splits = ("--split-by", str(self._splits()))
            self._build(
                folder, "folder", CALTECH, "--name", "caltech", "--sizes", "84", "224", *splits
            )
        else:
            small = ("--sizes", "28", "--encode", "28=raw")
            self._build(folder / "mnist", "mnist", "mnist", *small)
            self._build(folder / "caltech101", "folder", CALTECH, "--name", "caltech101", *small)
        return folder

    def _build(self, folder: Path, dataset: str, source: str, *flags: str) -> None:
        where = ("--source", str(self.data / source), "--out", str(folder))
        if build.main(["--dataset", dataset, *where, *flags, "--quiet"]):
            raise SystemExit(1)

    def _splits(self) -> Path:
        """Of every five classes, two to be tested on."""
        with tarfile.open(self.data / CALTECH) as tar:
            files = [PurePosixPath(name) for name in tar.getnames() if name.endswith(".jpg")]
        lines = (
            f"{name} {'test' if number % 5 in HELD_OUT else 'train'}\n"
            for number, name in enumerate(sorted({file.parent.name for file in files}))
        )
        path = self.root / "caltech-splits.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(lines), encoding="utf-8")
        return path


def words(text: str) -> tuple[str, ...]:
    """Flags as the command line has them."""
    return tuple(text.split())


if __name__ == "__main__":
    sys.exit(main())
