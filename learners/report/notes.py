"""What a reader must know of a result before comparing it: footnotes of its row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from learners.evaluate.protocols import MD_TEST, TASKS
from learners.report.results import Result
from pipeline.samplers.orbit.rules import published
from pipeline.samplers.vtab import GROUPS

ORBIT_TASKS: Final = {
    "2021": published("2021", "test", {}).tasks_per_user,
    "2022": published("2022", "test", {}).tasks_per_user,
}
"""Of each test user."""
DATASETS: Final = {
    "mean md": len(MD_TEST),
    "mean all": sum(map(len, GROUPS.values())),
    **{f"mean {name}": len(tasks) for name, tasks in GROUPS.items()},
}
"""What the averages of the benchmarks are over, whatever an evaluation was asked for."""
SIZES: Final = (84, 224)
"""Pixels that the papers evaluated at."""


def notes(result: Result) -> tuple[str, ...]:
    """All of them: where the result leaves its protocol, what it lacks, what the evaluation noted."""
    own = [*limits(result), *_missing(result), *_smaller(result)]
    others = [note for note in result.evaluation.notes if not any(note in said for said in own)]
    return tuple(dict.fromkeys([*own, *others]))


def limits(result: Result) -> tuple[str, ...]:
    """What makes its figures incomparable with those of the full protocol, published ones among them."""
    return tuple(f"not comparable: {reason}" for reason in _limits(result))


def _limits(result: Result) -> Iterator[str]:
    if limit := result.option("query_limit"):
        yield f"at most {limit} query images of each task"
    if result.protocol == "fixed":
        return  # any split and any size is as it should be, and the heading says which
    split = result.option("split", "test")
    if split != "test":
        yield f"the {split} split"
    size = result.option("image_size", result.evaluation.learner.get("image_size"))
    if size is not None and size not in SIZES:
        yield f"{size} px, where the papers have {' and '.join(map(str, SIZES))}"


def partial(result: Result) -> dict[str, str]:
    """Averages over fewer datasets than the benchmark has: by column, "5 of 8"."""
    short = {}
    for average in result.evaluation.averages:
        key, wanted = result.mean_key(average), average.wanted
        if result.protocol != "fixed":
            wanted = DATASETS.get(key, wanted)
        if average.found < wanted:
            short[key] = f"{average.found} of {wanted}"
    return short


def _missing(result: Result) -> Iterator[str]:
    for average in result.evaluation.averages:
        if average.name == "all" and average.missing:
            yield (
                f"{len(average.missing)} of {average.wanted} datasets are not in the shards: "
                f"{', '.join(average.missing)}"
            )


def _smaller(result: Result) -> Iterator[str]:
    if result.protocol in ("md", "fixed"):
        least = min((score.count for score in result.evaluation.scores), default=TASKS)
        if least < TASKS:
            yield f"{least} tasks of each dataset, where the protocol has {TASKS}"
    per_user = result.option("tasks_per_user")
    wanted = ORBIT_TASKS.get(result.variant) if result.protocol == "orbit" else None
    if wanted is not None and per_user is not None and per_user < wanted:
        yield f"{per_user} tasks of each user, where the protocol has {wanted}"
    trained = result.evaluation.learner.get("image_size")
    size = result.option("image_size", trained)
    if trained is not None and size != trained:
        yield f"evaluated at {size} px, trained at {trained} px"
