"""The summary of all answers: each dataset's scores, the papers' averages, and the cost of adapting."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from learners.evaluate.costs import LearnerMacs, adaptation_steps, count_parameters
from learners.evaluate.records import AdaptationCost, AverageScore, DatasetScore, TaskAnswers
from learners.evaluate.scores import challenge_results
from learners.evaluate.task_set import DatasetTasks, TaskSet
from learners.learner import MetaLearner
from pipeline.layout import write_atomically

AVERAGED_METRIC = "accuracy"


def score_tasks(task_set: TaskSet, tasks: Sequence[TaskAnswers]) -> tuple[DatasetScore, ...]:
    """The scores of each dataset, in order; the answered tasks are in the order of the task set."""
    return tuple(
        score
        for dataset, own in _by_dataset(task_set, tasks)
        for score in dataset.scorer(own, dataset.dataset)
    )


def average_scores(task_set: TaskSet, scores: Sequence[DatasetScore]) -> tuple[AverageScore, ...]:
    """The averages over the datasets that are present; one over none is left out."""
    values = {score.dataset: score.value for score in scores}
    return tuple(
        AverageScore(
            name=name,
            metric=AVERAGED_METRIC,
            value=math.fsum(values[dataset] for dataset in present) / len(present),
            found=len(present),
            wanted=len(wanted),
            missing=tuple(dataset for dataset in wanted if dataset not in values),
        )
        for name, wanted in task_set.averages.items()
        if (present := [dataset for dataset in wanted if dataset in values])
    )


def adaptation_cost(
    net: MetaLearner, macs: Sequence[float | None], tasks: Sequence[TaskAnswers]
) -> AdaptationCost:
    """Mean multiply-accumulates over the tasks, and median seconds: the machine is busy in some tasks."""
    known = [value for value in macs if value is not None]
    return AdaptationCost(
        parameters=count_parameters(net),
        macs=math.fsum(known) / len(known) if known else None,
        steps=adaptation_steps(net),
        seconds=median(task.adapt_seconds for task in tasks),
    )


def write_challenge_files(
    folder: Path, macs: Sequence[float | None], task_set: TaskSet, tasks: Sequence[TaskAnswers]
) -> list[Path]:
    """Write the result files of ORBIT's challenge, one for each mode, and return their paths."""
    left = iter(macs)
    paths = []
    for dataset, own in _by_dataset(task_set, tasks):
        costs = [next(left) for _ in own]
        if dataset.challenge:
            paths.append(folder / f"challenge-{dataset.mode}.json")
            results = challenge_results(own, costs)
            write_atomically(paths[-1], (json.dumps(results) + "\n").encode())
    return paths


def task_macs(
    net: MetaLearner, image_size: int, task_set: TaskSet, tasks: Sequence[TaskAnswers]
) -> list[float | None]:
    """The multiply-accumulates to adapt to each task; None where they are not known."""
    learner = LearnerMacs.of(net, image_size)
    return [
        learner.macs(task.support, task.way, dataset.clip)
        for dataset, own in _by_dataset(task_set, tasks)
        for task in own
    ]


def _by_dataset(
    task_set: TaskSet, tasks: Sequence[TaskAnswers]
) -> Iterator[tuple[DatasetTasks, Sequence[TaskAnswers]]]:
    begin = 0
    for dataset in task_set.datasets:
        yield dataset, tasks[begin : begin + dataset.tasks]
        begin += dataset.tasks
