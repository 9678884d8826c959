"""Whether a learner was trained on the classes and users that it is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from learners.evaluate.task_set import DatasetTasks
from learners.runs import SETTINGS_FILE, read_run_settings, training_datasets
from pipeline.errors import PipelineError, first_few
from pipeline.index import Dataset
from pipeline.records import Split
from pipeline.samplers import Pool
from pipeline.shardset import ShardSet

TRAINING_SPLIT: Final = "train"
NOT_CHECKED: Final = "whether its training had classes of these tasks was not checked"


def training_overlap(checkpoint: Path, tasks: Sequence[DatasetTasks], shards: ShardSet) -> tuple[str, ...]:
    """Notes on classes and users that the run of a checkpoint was trained on, by name within a dataset.

    Where that cannot be checked, a note says why: only the run's folder names the shards it was trained on.
    """
    folder = checkpoint.parent
    if not (folder / SETTINGS_FILE).is_file():
        return (f"{NOT_CHECKED}: no {SETTINGS_FILE} beside {checkpoint.name}",)
    try:
        settings = read_run_settings(folder)
        trained = training_datasets(
            ShardSet.open(settings.shards), settings.datasets, orbit=bool(settings.orbit)
        )
    except (PipelineError, OSError) as error:
        return (f"{NOT_CHECKED}: {error}",)
    splits = {own.dataset: own.split for own in tasks}
    return tuple(
        note
        for name, split in splits.items()
        if name in trained
        for note in _overlap_notes(trained[name], shards[name], split)
    )


def _overlap_notes(trained: Dataset, evaluated: Dataset, split: Split) -> Iterator[str]:
    before = class_and_user_names(trained, TRAINING_SPLIT)
    now = class_and_user_names(evaluated, split)
    for what in ("classes", "users"):
        both = sorted(now[what] & before[what])
        if both:
            yield (
                f"TRAINED ON: {len(both)} of {len(now[what])} {what} of {evaluated.manifest.name} were in "
                f"training too: {first_few(both)}"
            )


def class_and_user_names(dataset: Dataset, split: Split) -> dict[str, set[str]]:
    """The names of a split's classes, and of its users in ORBIT."""
    records = [dataset.manifest.classes[c] for c in Pool.of(dataset, split).class_ids]
    has_users = dataset.index.words["user"] not in ((), ("",))
    return {
        "classes": {record.name for record in records},
        "users": {record.superclass for record in records if has_users},
    }
