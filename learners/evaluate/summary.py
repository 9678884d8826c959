"""Answers become figures: each dataset's scores, the papers' averages, and what adapting took."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from torch import nn

from learners.evaluate.costs import Adaptation, parameters, steps
from learners.evaluate.records import Average, Cost, Score, TaskAnswers
from learners.evaluate.scores import accuracy, challenge, orbit_scores
from learners.evaluate.work import Part, Work
from pipeline.layout import write_whole
from pipeline.samplers import Orbit

METRIC = "accuracy"


def scores(work: Work, tasks: Sequence[TaskAnswers]) -> tuple[Score, ...]:
    """Of each part, in order; the tasks are in the order of the parts."""
    found: list[Score] = []
    for part, own in _by_part(work, tasks):
        if isinstance(part.sampler, Orbit):
            found += orbit_scores(own, part.dataset, part.sampler.protocol)
        else:
            found.append(accuracy(own, part.dataset, part.group))
    return tuple(found)


def averages(work: Work, found: Sequence[Score]) -> tuple[Average, ...]:
    """Over the datasets that there are; one without any is left out."""
    values = {score.dataset: score.value for score in found}
    return tuple(
        Average(
            name=name,
            metric=METRIC,
            value=math.fsum(values[dataset] for dataset in there) / len(there),
            found=len(there),
            wanted=len(wanted),
            missing=tuple(dataset for dataset in wanted if dataset not in values),
        )
        for name, wanted in work.averages.items()
        if (there := [dataset for dataset in wanted if dataset in values])
    )


def cost(net: nn.Module, macs: Sequence[float | None], tasks: Sequence[TaskAnswers]) -> Cost:
    """Means over the tasks; of the seconds the median, as some tasks come while the machine is busy."""
    known = [value for value in macs if value is not None]
    return Cost(
        parameters=parameters(net),
        macs=math.fsum(known) / len(known) if known else None,
        steps=steps(net),
        seconds=median(task.adapt_seconds for task in tasks),
    )


def write_challenges(
    folder: Path, macs: Sequence[float | None], work: Work, tasks: Sequence[TaskAnswers]
) -> list[Path]:
    """The result files of ORBIT's challenge, one for each mode; its protocol is the one of 2022."""
    left = iter(macs)
    paths = []
    for part, own in _by_part(work, tasks):
        costs = [next(left) for _ in own]
        if isinstance(part.sampler, Orbit) and part.sampler.protocol == "2022":
            paths.append(folder / f"challenge-{part.mode}.json")
            write_whole(paths[-1], (json.dumps(challenge(own, costs)) + "\n").encode())
    return paths


def _by_part(work: Work, tasks: Sequence[TaskAnswers]) -> list[tuple[Part, Sequence[TaskAnswers]]]:
    found, begin = [], 0
    for part in work.parts:
        found.append((part, tasks[begin : begin + part.tasks]))
        begin += part.tasks
    return found


def task_macs(
    net: nn.Module, image_size: int, work: Work, tasks: Sequence[TaskAnswers]
) -> list[float | None]:
    """To adapt to each task; None where they are not known."""
    adaptation = Adaptation.of(net, image_size)
    return [
        adaptation.macs(task.support, task.way, part.clip)
        for part, own in _by_part(work, tasks)
        for task in own
    ]
