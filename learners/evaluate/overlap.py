"""Whether a learner was trained on what it is evaluated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from learners.evaluate.work import Part
from learners.runs import SETTINGS_FILE, read_settings, training_datasets
from pipeline.errors import PipelineError, few
from pipeline.index import Dataset
from pipeline.records import Split
from pipeline.samplers import Pool
from pipeline.shardset import ShardSet

TRAINING: Final = "train"


def overlap(file: Path, parts: Sequence[Part], shards: ShardSet) -> tuple[str, ...]:
    """Notes on classes and users that the checkpoint's run was trained on, by name within a dataset.

    Also where that cannot be known: the run's folder says which shards it was trained on.
    """
    folder = file.parent
    if not (folder / SETTINGS_FILE).is_file():
        return (
            f"whether its training had classes of these tasks was not checked: no {SETTINGS_FILE} beside {file.name}",
        )
    try:
        settings = read_settings(folder)
        trained = training_datasets(
            ShardSet.open(settings["shards"]), settings["datasets"], orbit=bool(settings["orbit"])
        )
    except (PipelineError, OSError) as error:
        return (f"whether its training had classes of these tasks was not checked: {error}",)
    return tuple(note for part in _datasets(parts) for note in _notes(part, trained, shards))


def _datasets(parts: Sequence[Part]) -> list[Part]:
    """One part of each dataset."""
    return list({part.dataset: part for part in parts}.values())


def _notes(part: Part, trained: Mapping[str, Dataset], shards: ShardSet) -> Iterator[str]:
    if part.dataset not in trained:
        return
    before, asked = (
        (names(trained[part.dataset], TRAINING)),
        (names(shards[part.dataset], part.split)),
    )
    for what in ("classes", "users"):
        both = sorted(asked[what] & before[what])
        if both:
            yield (
                f"TRAINED ON: {len(both)} of {len(asked[what])} {what} of {part.dataset} were in training "
                f"too: {few(both)}"
            )


def names(dataset: Dataset, split: Split) -> dict[str, set[str]]:
    """The classes of a split, and the users of ORBIT's."""
    records = [dataset.manifest.classes[c] for c in Pool.of(dataset, split).class_ids]
    has_users = dataset.index.words["user"] not in ((), ("",))
    return {
        "classes": {record.name for record in records},
        "users": {record.superclass for record in records if has_users},
    }
