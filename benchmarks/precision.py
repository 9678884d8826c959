"""Accuracy by precision on real photographs: EfficientNet-Lite0 with its ImageNet weights, Caltech-101 at 84 pixels.

    python -m benchmarks.precision evaluate    learners, frozen and trained, evaluated in each precision on the same tasks
    python -m benchmarks.precision train       short meta-training in each precision from the same seeds, evaluated in float32

On a CPU the precisions are emulated (`learners.study.tensor_cores`). Needs REAL_DATA (caltech101/, weights/). What is
there already is not made again, so the same command goes on.
"""

from __future__ import annotations

import math
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Final, get_args

import train
from benchmarks.common import TableRow, markdown_table
from benchmarks.learning import ShardSets, split_words
from benchmarks.workloads import CALTECH
from learners.evaluate import __main__ as evaluate
from learners.evaluate.ledger import TaskLedger
from learners.evaluate.scores import mean_interval
from learners.networks.arithmetic import Precision
from learners.processes import choose_device
from learners.runs import LAST_CHECKPOINT
from learners.study.tensor_cores import computing
from pipeline.errors import SourceMissing

LITE0_WEIGHTS: Final = "weights/tf_efficientnet_lite0.safetensors"
RATES: Final = {"protonets_cosine": "--lr 0.00001 --fit-temperature", "simple_cnaps": "--lr 0.001"}
TRAINED: Final = (
    "--way 10 --shot 5 --query 3 --h 20 --flip --tasks 96 --tasks-per-step 4 --validate-every 0 --chunk 40"
)
EVALUATED: Final = "--protocol fixed --split test --way 10 --shot 5 --query 10 --chunk 40"
BASELINE: Final[Precision] = "float32"
EVALUATED_TASKS: Final = {"protonets_cosine": 600, "simple_cnaps": 60}  # FiLM is another one in each task


class PrecisionRuns:
    """Runs and evaluations in a folder, each made once."""

    def __init__(self, data: Path, out: Path, device: str) -> None:
        self._weights = data / LITE0_WEIGHTS
        self._shards = ShardSets(out / "shards", data).folder("caltech")
        self._out = out
        self._device = choose_device(device)

    def train(self, learner: str, precision: Precision, seed: int) -> Path:
        """A run in a precision, from a seed."""
        folder = self._out / f"{learner}-{precision}-{seed}"
        if not (folder / LAST_CHECKPOINT).exists():
            flags = (*self._network(learner), *split_words(TRAINED), *split_words(RATES[learner]))
            own = ("--out", str(folder), "--seed", str(seed), "--no-validate-at-end", "--threads", "1")
            with computing(precision, self._device):
                train.main([*self._common(precision), *flags, *own])
        return folder

    def accuracies(self, learner: str, precision: Precision, run: Path | None) -> list[float]:
        """The accuracy of a run, or of the learner without training, on each held-out task."""
        folder = self._out / "results" / f"{run.name if run else f'{learner}-frozen'}-in-{precision}"
        which = ("--checkpoint", str(run)) if run else self._network(learner)
        own = ("--out", str(folder), "--tasks", str(EVALUATED_TASKS[learner]), "--threads", "1")
        with computing(precision, self._device):
            evaluate.main([*self._common(precision), *which, *split_words(EVALUATED), *own])
        with TaskLedger(folder, 0) as ledger:
            found = ledger.tasks()
        return [found[key].accuracy for key in sorted(found)]

    def _common(self, precision: Precision) -> tuple[str, ...]:
        return "--shards", str(self._shards), "--precision", precision, "--device", str(self._device)

    def _network(self, learner: str) -> tuple[str, ...]:
        words = f"--learner {learner} --backbone tf_efficientnet_lite0 --image-size 84 --weights"
        return *split_words(words), str(self._weights)


def evaluated(runs: PrecisionRuns, _seeds: Sequence[int]) -> Iterator[TableRow]:
    """A row for each learner and precision; the tasks are the same."""
    for learner, trained in (("protonets_cosine", False), ("protonets_cosine", True), ("simple_cnaps", True)):
        run = runs.train(learner, BASELINE, 0) if trained else None
        base = runs.accuracies(learner, BASELINE, run)
        for precision in get_args(Precision):
            found = runs.accuracies(learner, precision, run)
            name = f"{learner}, {'trained in float32' if trained else 'frozen'}"
            yield {"learner": name, "evaluated in": precision, **compared(found, base)}


def meta_trained(runs: PrecisionRuns, seeds: Sequence[int]) -> Iterator[TableRow]:
    """A row for each learner, precision and seed; all are evaluated in float32 on the same tasks."""
    for learner, seed in product(RATES, seeds):
        base = runs.accuracies(learner, BASELINE, runs.train(learner, BASELINE, seed))
        for precision in get_args(Precision):
            found = runs.accuracies(learner, BASELINE, runs.train(learner, precision, seed))
            yield {"learner": learner, "seed": seed, "trained in": precision, **compared(found, base)}


def compared(found: Sequence[float], base: Sequence[float]) -> TableRow:
    """The mean accuracy over tasks, and its difference from another learner's on the same tasks, in per cent."""
    mean, half = mean_interval(found)
    less, spread = mean_interval([one - other for one, other in zip(found, base, strict=True)])
    changed = sum(not math.isclose(one, other) for one, other in zip(found, base, strict=True))
    return {
        "accuracy, %": f"{100 * mean:.2f} ± {100 * half:.2f}",
        f"against {BASELINE}": f"{100 * less:+.3f} ± {100 * spread:.3f}",
        "tasks that differ": f"{changed} of {len(base)}",
    }


EXPERIMENTS: Final = {"evaluate": evaluated, "train": meta_trained}


def main(argv: list[str] | None = None) -> int:
    """Make what is missing, then print the table."""
    flags = ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("experiment", choices=EXPERIMENTS)
    flags.add_argument("--out", type=Path, default=Path("runs/precision"), help="the folder of all results")
    flags.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    flags.add_argument("--device", default="auto")
    arguments = flags.parse_args(argv)
    data = Path(os.environ.get("REAL_DATA", ""))
    if not (data / CALTECH).exists():
        raise SourceMissing("REAL_DATA should name the folder with caltech101/ and weights/")
    runs = PrecisionRuns(data, arguments.out, arguments.device)
    print(markdown_table(list(EXPERIMENTS[arguments.experiment](runs, arguments.seeds))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
