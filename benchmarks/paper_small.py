"""The small form of the LITE paper's studies: its runs, their training and evaluation, and their tables."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import train
from benchmarks.common import TableRow, markdown_table
from benchmarks.learning import write_caltech_splits
from benchmarks.paper_runs import HEADINGS, LITE0_WEIGHTS, ROWS, USUAL_H, SmallForm, StudyRun, lite_run
from benchmarks.workloads import CALTECH
from learners.evaluate import __main__ as evaluate
from learners.evaluate.ledger import TaskLedger
from learners.evaluate.scores import mean_interval
from learners.methods.catalogue import LEARNERS, WITH_TEMPERATURE
from learners.report.published import H_STUDY
from learners.runs import LAST_CHECKPOINT
from learners.study import __main__ as study
from pipeline.build import __main__ as build
from pipeline.errors import SourceMissing
from pipeline.settings import flag_name

EVALUATION_QUERIES: Final = 4  # of a class
HELD_OUT: Final = "validation"  # the split of the classes that all runs are asked about
RATE_OF_BACKBONE, RATE_OF_FILM = 1e-4, 1e-3  # where the backbone learns, and where FiLM adapts a frozen one
SAMPLERS_BY_ERROR: Final = ("neyman", "uniform", "subsample", "paper-lite")
PUBLISHED_LEARNERS: Final = {"protonets": "ProtoNets + LITE", "simple_cnaps": "Simple CNAPs + LITE"}

TaskAccuracies = dict[str, dict[int, float]]
"""The accuracy of each task, by dataset and number."""


@dataclass(frozen=True, slots=True)
class SmallStudy:
    """The runs of one form in a folder: what is not there yet is made."""

    form: SmallForm
    out: Path

    def table(self, study_name: str) -> str:
        """Train and evaluate the rows of a study; their table."""
        self._build_shards()
        rows: list[TableRow] = []
        for learner in self.form.learners:
            runs = list(ROWS[study_name](self.form, learner))
            accuracies = {run.name: self._evaluated(run) for run in runs}
            for run in runs:
                row = _table_row(run, accuracies, HEADINGS[study_name])
                rows.append({**row, **_published_figures(run)} if study_name == "table2" else row)
        return markdown_table(rows)

    def figure4(self) -> str:
        """Measure the gradients of the runs at the usual |H|, on tasks of held-out classes; the table."""
        self._build_shards()
        rows: list[TableRow] = []
        for learner in self.form.learners:
            file = self._figure_file(learner)
            if not file.exists():
                self._trained(self._usual_run(learner), self.form.seeds[0])
                study.main(self._study_flags(learner))
            rows += [
                {"learner": learner, "sampler": row["sampler"], "H": row["h"], "bias": row["bias"],
                 "error": row["rmse"]["mean"]}
                for row in json.loads(file.read_text())["rows"]
            ]  # fmt: skip
        return markdown_table(rows)

    def commands(self, study_name: str) -> Iterator[str]:
        """The commands of a study but for its evaluations, for the first seed."""
        seed = self.form.seeds[0]
        for learner in self.form.learners:
            figure = study_name == "figure4"
            runs = [self._usual_run(learner)] if figure else ROWS[study_name](self.form, learner)
            for run in runs:
                if run.changes is not None:
                    yield shlex.join(["python", "train.py", *self._training_flags(run, seed)])
            if figure:
                yield shlex.join(["python", "-m", "learners.study", *self._study_flags(learner)])

    def _usual_run(self, learner: str) -> StudyRun:
        return lite_run(self.form, learner, min(USUAL_H, max(self.form.h)))

    def _figure_file(self, learner: str) -> Path:
        return self.out / f"figure4-{learner}.json"

    def _study_flags(self, learner: str) -> list[str]:
        form, file = self.form, self._figure_file(learner)
        return flag_words(
            shards=self._shards, run=self._folder(self._usual_run(learner), form.seeds[0]), split=HELD_OUT,
            way=form.way, shot=form.shot, query=form.query, h=tuple(h for h in form.h if h),
            samplers=SAMPLERS_BY_ERROR, tasks=form.gradient_tasks, draws=200, runs=4,
            out=file, png=file.with_suffix(".png"),
        )  # fmt: skip

    def _evaluated(self, run: StudyRun) -> TaskAccuracies:
        """The accuracy of each task, the mean over seeds."""
        per_seed = [self._evaluate(run, seed) for seed in (self.form.seeds if run.changes else (0,))]
        return {
            dataset: {
                number: math.fsum(one[dataset][number] for one in per_seed) / len(per_seed)
                for number in tasks
            }
            for dataset, tasks in per_seed[0].items()
        }

    def _evaluate(self, run: StudyRun, seed: int) -> TaskAccuracies:
        form, folder = self.form, self.out / "results" / f"{run.name}-{seed}"
        if run.changes is None:
            learner = self._learner_flags(run)
        else:
            learner = ["--checkpoint", str(self._trained(run, seed))]
        evaluate.main(
            ["--shards", self._shards, *learner, "--protocol", "fixed", "--split", HELD_OUT, "--out", str(folder),
             *flag_words(way=form.way, shot=form.shot, query=EVALUATION_QUERIES, tasks=form.questions)]
        )  # fmt: skip
        accuracies: TaskAccuracies = {}
        with TaskLedger(folder, 0) as ledger:
            for task in ledger.tasks().values():
                if task.number < form.questions:
                    accuracies.setdefault(task.dataset, {})[task.number] = task.accuracy
        return accuracies

    def _trained(self, run: StudyRun, seed: int) -> Path:
        """Train, or go on; a finished run with other settings is an error."""
        flags, folder = self._training_flags(run, seed), self._folder(run, seed)
        resume = ["--resume", str(folder)] if (folder / LAST_CHECKPOINT).exists() else []
        train.main([*flags, *resume])
        return folder

    def _folder(self, run: StudyRun, seed: int) -> Path:
        return self.out / f"{run.name}-{seed}"

    def _training_flags(self, run: StudyRun, seed: int) -> list[str]:
        form, entry = self.form, LEARNERS[run.learner]
        settings = {
            "way": form.way, "shot": form.shot, "query": form.query, "tasks": form.tasks,
            "tasks_per_step": form.tasks_per_step, "lr": RATE_OF_FILM if entry.frozen else RATE_OF_BACKBONE,
            "validate_every": 0, "save_every": 10 * form.tasks_per_step, "seed": seed,
            **(run.changes or {}), "out": self._folder(run, seed),
        }  # fmt: skip
        fitted = ["--fit-temperature"] if run.learner in WITH_TEMPERATURE else []
        return [
            "--shards", self._shards, *self._learner_flags(run), *flag_words(**settings), *fitted,
            "--no-validate-at-end",
        ]  # fmt: skip

    def _learner_flags(self, run: StudyRun) -> list[str]:
        form = self.form
        weights = form.weights or real_data() / LITE0_WEIGHTS
        return flag_words(
            learner=run.learner, backbone=form.backbone, weights=weights, image_size=form.image_size
        )

    @property
    def _shards(self) -> str:
        return self.form.shards or str(self.out / "shards")

    def _build_shards(self) -> None:
        """Build Omniglot and Caltech-101, where no shard set is named."""
        if self.form.shards:
            return
        data, splits = real_data(), self.out / "caltech-splits.txt"
        write_caltech_splits(data, splits, HELD_OUT)
        sources: dict[str, list[object]] = {
            "caltech": ["folder", "--source", data / CALTECH, "--name", "caltech", "--split-by", splits],
            "omniglot": ["omniglot", "--source", data / "omniglot"],
        }
        for name, words in sources.items():
            out = ["--out", Path(self._shards) / name, "--sizes", self.form.image_size, "--quiet"]
            build.main(["--dataset", *map(str, [*words, *out])])


def real_data() -> Path:
    """The folder of real datasets, with the files that the small form needs."""
    data = Path(os.environ.get("REAL_DATA", ""))
    needed = (LITE0_WEIGHTS, CALTECH, "omniglot/images_background.zip")
    if missing := [name for name in needed if not (data / name).exists()]:
        raise SourceMissing(
            f"REAL_DATA should name the folder with {', '.join(needed)}; {data.resolve()} lacks "
            f"{', '.join(missing)}. --shards, --backbone and --weights take others"
        )
    return data


def flag_words(**settings: Any) -> list[str]:
    """Settings in the form of a command line."""
    words: list[str] = []
    for name, value in settings.items():
        words += [flag_name(name), *map(str, value if isinstance(value, tuple) else (value,))]
    return words


def paired_difference(one: TaskAccuracies, other: TaskAccuracies) -> tuple[float, float]:
    """The mean over datasets of one run's accuracy minus another's on the same tasks, and half its 95 % interval."""
    parts = [mean_interval([one[name][number] - other[name][number] for number in one[name]]) for name in one]
    return _mean_of_means(parts)


def _mean_of_means(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean of independent means, and half of its interval."""
    return math.fsum(m for m, _ in parts) / len(parts), math.hypot(*(half for _, half in parts)) / len(parts)


def _table_row(run: StudyRun, accuracies: Mapping[str, TaskAccuracies], heading: str) -> TableRow:
    own = accuracies[run.name]
    scores = {name: mean_interval([*tasks.values()]) for name, tasks in own.items()}
    difference = ""
    if run.name != run.against:
        mean, half = paired_difference(own, accuracies[run.against])
        difference = _percent(mean, half, sign="+") + ("" if abs(mean) > half else " (not significant)")
    return {
        "learner": run.learner, "trained with": run.label,
        **{f"{name}, %": _percent(*score) for name, score in scores.items()},
        **({"mean, %": _percent(*_mean_of_means([*scores.values()]))} if len(scores) > 1 else {}),
        heading: difference,
    }  # fmt: skip


def _percent(mean: float, half: float, sign: str = "") -> str:
    return f"{100 * mean:{sign}.2f} ± {100 * half:.2f}"


def _published_figures(run: StudyRun) -> TableRow:
    """The paper's figures at the same |H|, at 224 pixels."""
    for row in H_STUDY:
        if row.learner == PUBLISHED_LEARNERS.get(run.learner) and row.image_size == 224 and row.h == run.h:
            keys = {"mean md": "paper, MD-v2", "mean all": "paper, VTAB"}
            return {heading: str(row.figures[key].value) for key, heading in keys.items()}
    return {}
