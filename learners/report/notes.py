"""The footnotes of a result's row: what a reader must know before comparing it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from learners.evaluate.protocols import MD_TEST, TASKS_PER_DATASET
from learners.report.paper_options import option_notes
from learners.report.results import NamedResult
from pipeline.samplers.orbit.rules import protocol_rules
from pipeline.samplers.vtab import VTAB_GROUPS

ORBIT_TASKS: Final = {
    "2021": protocol_rules("2021", "test", {}).tasks_per_user,
    "2022": protocol_rules("2022", "test", {}).tasks_per_user,
}
"""Tasks of each test user, by protocol."""
BENCHMARK_DATASETS: Final = {
    "mean md": len(MD_TEST),
    "mean all": sum(map(len, VTAB_GROUPS.values())),
    **{f"mean {name}": len(tasks) for name, tasks in VTAB_GROUPS.items()},
}
"""The number of datasets that each average of the benchmarks is over, by column."""
PAPER_SIZES: Final = (84, 224)
"""The image sizes of the papers, in pixels."""


def result_notes(result: NamedResult) -> tuple[str, ...]:
    """All notes: where the result leaves its protocol, what is missing, what the evaluation noted."""
    own = [
        *protocol_deviations(result), *_missing_note(result), *_smaller_notes(result), *option_notes(result)
    ]  # fmt: skip
    others = [note for note in result.evaluation.notes if not any(note in mine for mine in own)]
    return tuple(dict.fromkeys([*own, *others]))


def protocol_deviations(result: NamedResult) -> tuple[str, ...]:
    """What makes its figures incomparable with those of the full protocol, such as published ones."""
    return tuple(f"not comparable: {reason}" for reason in _deviations(result))


def _deviations(result: NamedResult) -> Iterator[str]:
    if limit := result.option("query_limit"):
        yield f"at most {limit} query images of each task"
    if result.protocol == "fixed":
        return  # its splits and sizes are free, and the heading says which
    split = result.option("split", "test")
    if split != "test":
        yield f"the {split} split"
    size = result.option("image_size", result.evaluation.learner.get("image_size"))
    if size is not None and size not in PAPER_SIZES:
        yield f"{size} px, where the papers have {' and '.join(map(str, PAPER_SIZES))}"


def partial_averages(result: NamedResult) -> dict[str, str]:
    """The averages over fewer datasets than the benchmark has, by column: "5 of 8"."""
    partial = {}
    for average in result.evaluation.averages:
        key, wanted = result.mean_key(average), average.wanted
        if result.protocol != "fixed":
            wanted = BENCHMARK_DATASETS.get(key, wanted)
        if average.found < wanted:
            partial[key] = f"{average.found} of {wanted}"
    return partial


def _missing_note(result: NamedResult) -> Iterator[str]:
    for average in result.evaluation.averages:
        if average.name == "all" and average.missing:
            yield (
                f"{len(average.missing)} of {average.wanted} datasets are not in the shards: "
                f"{', '.join(average.missing)}"
            )


def _smaller_notes(result: NamedResult) -> Iterator[str]:
    if result.protocol in ("md", "fixed"):
        least = min((score.count for score in result.evaluation.scores), default=TASKS_PER_DATASET)
        if least < TASKS_PER_DATASET:
            yield f"{least} tasks of each dataset, where the protocol has {TASKS_PER_DATASET}"
    per_user = result.option("tasks_per_user")
    wanted = ORBIT_TASKS.get(result.variant) if result.protocol == "orbit" else None
    if wanted is not None and per_user is not None and per_user < wanted:
        yield f"{per_user} tasks of each user, where the protocol has {wanted}"
    trained = result.evaluation.learner.get("image_size")
    size = result.option("image_size", trained)
    if trained is not None and size != trained:
        yield f"evaluated at {size} px, trained at {trained} px"
