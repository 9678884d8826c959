"""Which sampler's episodes are shown: the one asked for, or the one that suits the shard set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.episodes import EpisodePlan, Sampler
from pipeline.errors import UsageError
from pipeline.index import Dataset
from pipeline.records import SPLITS
from pipeline.samplers.fixed import Fixed
from pipeline.samplers.meta_dataset import MetaDataset
from pipeline.samplers.orbit.sampler import Orbit
from pipeline.samplers.replay import Replay
from pipeline.samplers.vtab import GROUPS, Vtab
from pipeline.shardset import ShardSet
from pipeline.show.facts import facts
from pipeline.show.strips import KINDS

SAMPLERS: Final = ("meta_dataset", "fixed", "vtab", "orbit")
WAY: Final = 5
SHOT: Final = 5
QUERY: Final = 10
"""Of a fixed episode of which nothing else is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was asked for; None leaves it to the shard set."""

    sampler: str | None = None
    split: str | None = None
    protocol: str | None = None
    seed: int = 0
    way: int | None = None
    shot: int | None = None
    query: int | None = None
    replay: Path | None = None
    """A file of plans instead of a sampler."""


def open_sampler(shards: ShardSet, request: Request) -> Sampler:
    """Raises UsageError for a request that no sampler can answer."""
    if request.replay is not None:
        _refuse(request, "saved plans", "sampler", "split", "protocol", "way", "shot", "query")
        return Replay(request.replay, shards, seed=request.seed)
    name = request.sampler or suited(shards)
    if name == "vtab":
        _refuse(request, "vtab", "split", "way", "shot", "query")
        return _vtab(shards, request)
    if name == "orbit":
        _refuse(request, "orbit", "way", "shot", "query")
        return _orbit(shards, request)
    _refuse(request, name, "protocol")
    split = _split(shards) if request.split is None else request.split
    if name == "fixed":
        return Fixed(
            shards,
            split=split,
            way=WAY if request.way is None else request.way,
            shot=SHOT if request.shot is None else request.shot,
            query=QUERY if request.query is None else request.query,
            seed=request.seed,
        )
    return MetaDataset(
        shards,
        split=split,
        seed=request.seed,
        way=request.way,
        shot=request.shot,
        query=request.query,
    )


def plan_of(sampler: Sampler, number: int) -> EpisodePlan:
    """An episode by number. Raises UsageError if there is none."""
    try:
        return sampler[number]
    except IndexError as error:
        raise UsageError(f"there is no episode {number}: {error}") from None


def suited(shards: ShardSet) -> str:
    """The sampler for these datasets. Raises UsageError if they need different ones."""
    names = {dataset.manifest.name: _suited(dataset) for dataset in shards}
    if len(set(names.values())) > 1:
        found = ", ".join(f"{dataset} {sampler}" for dataset, sampler in names.items())
        raise UsageError(
            f"{shards.root} holds datasets for different samplers ({found}); name one with --sampler, "
            "or the folder of one dataset"
        )
    return next(iter(names.values()))


def _suited(dataset: Dataset) -> str:
    if _has_users(dataset):
        return "orbit"
    known = facts(dataset)
    occurrences = sum(split.classes for split in known.splits)
    some_class_in_two_splits = occurrences > np.count_nonzero(known.class_samples)
    return "vtab" if some_class_in_two_splits else "meta_dataset"


def _has_users(dataset: Dataset) -> bool:
    return any(kind in dataset.index.words["kind"] for kind in KINDS)


def _split(shards: ShardSet) -> str:
    """Training if there is any, else the first split there is."""
    held = {split for dataset in shards for split in dataset.manifest.splits}
    return next(split for split in SPLITS if split in held)


def _vtab(shards: ShardSet, request: Request) -> Vtab:
    """The benchmark's tasks; each dataset is one if none is of the benchmark."""
    known = {name for names in GROUPS.values() for name in names}
    tasks = None if known & set(shards.datasets) else sorted(shards.datasets)
    protocol: Any = request.protocol or "vtab"  # the sampler checks it
    return Vtab(shards, protocol=protocol, tasks=tasks, seed=request.seed)


def _orbit(shards: ShardSet, request: Request) -> Orbit:
    found = [dataset.manifest.name for dataset in shards if _has_users(dataset)]
    if not found:
        raise UsageError(f"{shards.root} has no dataset of users' videos, which orbit needs")
    split = "train" if request.split is None else request.split
    protocol: Any = request.protocol or "2021"
    return Orbit(shards, split=split, protocol=protocol, dataset=found[0], seed=request.seed)


def _refuse(request: Request, sampler: str, *names: str) -> None:
    """Nothing that was asked for is left aside in silence."""
    given = [f"--{name}" for name in names if getattr(request, name) is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: {sampler} has no use for that; leave it out")
