"""Whether a learner is trained on the images, classes and users that it is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from learners.evaluate.shared_images import TEST_ONLY, other_names, plain_class_name
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
    """Notes on classes and users that the run of a checkpoint was trained on.

    They are compared by name, within a dataset and with others that hold the same images. Where that cannot
    be checked, a note says why: only the run's folder names the shards it was trained on.
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
        note for name, split in splits.items() for note in overlap_notes(trained, shards[name], split)
    )


def training_on_tests(shards: ShardSet, names: Sequence[str], *, orbit: bool) -> str:
    """A line about the training datasets whose images a benchmark or these shards test; "" if there are none.

    names: the datasets that a run trains on, or none for all with a training split.
    """
    tested = {
        name: reasons
        for name in training_datasets(shards, names, orbit=orbit)
        if (reasons := ", ".join(_test_uses(name, shards)))
    }
    if not tested:
        return ""
    listed = first_few([f"{name} ({reasons})" for name, reasons in tested.items()])
    return (
        f"this run trains on images that it may be tested on: {listed}; leave such datasets out with --datasets, or "
        "those figures out of a comparison"
    )


def _test_uses(name: str, shards: ShardSet) -> Iterator[str]:
    """Who tests the images of a training dataset."""
    if name in TEST_ONLY:
        yield f"{TEST_ONLY[name]} only tests it"
        return
    for other in other_names(name):
        if other in TEST_ONLY:
            yield f"{TEST_ONLY[other]} tests its images as {other}"
        elif other in shards.datasets and _held_out(shards[other]):
            yield f"it has the {' and '.join(_held_out(shards[other]))} classes of {other}"


def _held_out(dataset: Dataset) -> list[Split]:
    held_out: tuple[Split, ...] = ("validation", "test")
    return [split for split in held_out if dataset.manifest.splits.get(split)]


def overlap_notes(trained: Mapping[str, Dataset], evaluated: Dataset, split: Split) -> Iterator[str]:
    """Notes on what the training datasets have in common with a split of the evaluated one."""
    name = evaluated.manifest.name
    if name in trained:
        yield from _same_dataset_notes(trained[name], evaluated, split)
    for other in other_names(name):
        if other in trained:
            yield _shared_images_note(trained[other], evaluated, split)


def _shared_images_note(trained: Dataset, evaluated: Dataset, split: Split) -> str:
    name, other = evaluated.manifest.name, trained.manifest.name
    before = set(map(plain_class_name, class_and_user_names(trained, TRAINING_SPLIT)["classes"]))
    now = set(map(plain_class_name, class_and_user_names(evaluated, split)["classes"]))
    both = sorted(now & before)
    if not both:
        return f"TRAINED ON: {other}, which has the images of {name} under other classes, was in training"
    return (
        f"TRAINED ON: {len(both)} of {len(now)} classes of {name} were in training too, as {other}: "
        f"{first_few(both)}"
    )


def _same_dataset_notes(trained: Dataset, evaluated: Dataset, split: Split) -> Iterator[str]:
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
