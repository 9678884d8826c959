"""The datasets of a shard set that a protocol asks for, and those that it may learn from."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.records import Split
from pipeline.shardset import ShardSet


def choose_datasets(
    shards: ShardSet, named: Sequence[str], usual: Sequence[str], what: str
) -> tuple[str, ...]:
    """The datasets named, all of which must be in the shards, or else the usual ones that are."""
    if len(set(named)) < len(named):
        raise UsageError(f"--datasets takes different names, got {' '.join(named)}")
    present = tuple(name for name in named or usual if name in shards.datasets)
    held = ", ".join(map(_name_with_splits, shards))
    if named and len(present) < len(named):
        absent = ", ".join(name for name in named if name not in present)
        raise UsageError(f"{shards.root} has no dataset {absent}; it has {held}")
    if not present:
        raise UsageError(
            f"{shards.root} has no {what}; it has {held}; name others with --datasets, or build it with "
            "python -m pipeline.build"
        )
    return present


def validation_names(shards: ShardSet, split: Split, among: Sequence[str]) -> tuple[str, ...]:
    """The datasets with validation classes, if these are others than those that are scored.

    A UsageError where they are scored among all classes.
    """
    names = tuple(name for name in shards.with_split("validation") if name in among)
    if names and not split:
        raise UsageError("all classes are scored (--split ''), validation classes too")
    return () if split == "validation" else names


def _name_with_splits(dataset: Dataset) -> str:
    splits = ", ".join(filter(None, dataset.manifest.splits))
    return f"{dataset.manifest.name} ({splits})" if splits else dataset.manifest.name


def missing_datasets(wanted: Sequence[str], present: Sequence[str]) -> tuple[str, ...]:
    """A note on the wanted datasets that are not present; none if all are."""
    absent = [name for name in wanted if name not in present]
    if not absent:
        return ()
    return (f"{len(absent)} of {len(wanted)} datasets are not in the shards: {', '.join(absent)}",)
