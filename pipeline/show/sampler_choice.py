"""The sampler whose episodes are shown: the one asked for, or one that suits the shard set."""

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
from pipeline.samplers.vtab import VTAB_GROUPS, Vtab
from pipeline.settings import setting
from pipeline.shardset import ShardSet
from pipeline.show.facts import dataset_facts
from pipeline.show.strips import has_user_videos

SHOWN_SAMPLERS: Final = ("meta_dataset", "fixed", "vtab", "orbit")
FIXED_WAY: Final = 5
FIXED_SHOT: Final = 5
FIXED_QUERY: Final = 10
"""The defaults of a fixed episode."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplerRequest:
    """The sampler that was asked for; what is None depends on the shard set."""

    sampler: str | None = setting(None, "whose episodes (the one that suits the set)", choices=SHOWN_SAMPLERS)
    split: str | None = setting(None, "train, where there is one", choices=SPLITS[:-1])
    protocol: str | None = setting(None, "vtab, lite (VTAB); 2021, 2022 (ORBIT)", metavar="PROTOCOL")
    way: int | None = setting(None, "classes (the sampler's rule)", metavar="N")
    shot: int | None = setting(None, "support pictures of each class", metavar="N")
    query: int | None = setting(None, "query pictures of each class", metavar="N")
    replay: Path | None = setting(None, "episode N of these saved plans, from 0", metavar="FILE")
    seed: int = 0


def open_sampler(shards: ShardSet, request: SamplerRequest) -> Sampler:
    """Open the sampler of a request. Raises UsageError if no sampler can answer it."""
    if request.replay is not None:
        _refuse(request, "saved plans", "sampler", "split", "protocol", "way", "shot", "query")
        return Replay(request.replay, shards, seed=request.seed)
    name = request.sampler or suitable_sampler(shards)
    if name == "vtab":
        _refuse(request, "vtab", "split", "way", "shot", "query")
        return _open_vtab(shards, request)
    if name == "orbit":
        _refuse(request, "orbit", "way", "shot", "query")
        return _open_orbit(shards, request)
    _refuse(request, name, "protocol")
    split = _first_split(shards) if request.split is None else request.split
    if name == "fixed":
        return Fixed(
            shards,
            split=split,
            way=FIXED_WAY if request.way is None else request.way,
            shot=FIXED_SHOT if request.shot is None else request.shot,
            query=FIXED_QUERY if request.query is None else request.query,
            seed=request.seed,
        )
    return MetaDataset(
        shards, split=split, seed=request.seed, way=request.way, shot=request.shot, query=request.query
    )


def episode_plan(sampler: Sampler, number: int) -> EpisodePlan:
    """The plan of an episode by its number. Raises UsageError if there is none."""
    try:
        return sampler[number]
    except IndexError as error:
        raise UsageError(f"there is no episode {number}: {error}") from None


def suitable_sampler(shards: ShardSet) -> str:
    """The name of the sampler for these datasets. Raises UsageError if they need different ones."""
    names = {dataset.manifest.name: _sampler_for(dataset) for dataset in shards}
    if len(set(names.values())) > 1:
        pairs = ", ".join(f"{dataset} {sampler}" for dataset, sampler in names.items())
        raise UsageError(
            f"{shards.root} holds datasets for different samplers ({pairs}); name one with --sampler, "
            "or the folder of one dataset"
        )
    return next(iter(names.values()))


def _sampler_for(dataset: Dataset) -> str:
    if has_user_videos(dataset):
        return "orbit"
    facts = dataset_facts(dataset)
    occurrences = sum(split.classes for split in facts.splits)
    some_class_in_two_splits = occurrences > np.count_nonzero(facts.class_samples)
    return "vtab" if some_class_in_two_splits else "meta_dataset"


def _first_split(shards: ShardSet) -> str:
    """The training split, or else the first one that the datasets have."""
    splits = {split for dataset in shards for split in dataset.manifest.splits}
    return next(split for split in SPLITS if split in splits)


def _open_vtab(shards: ShardSet, request: SamplerRequest) -> Vtab:
    """A sampler of VTAB's tasks; where no dataset is one of these, each dataset is a task."""
    vtab_names = {name for names in VTAB_GROUPS.values() for name in names}
    tasks = None if vtab_names & set(shards.datasets) else sorted(shards.datasets)
    protocol: Any = request.protocol or "vtab"  # the sampler checks it
    return Vtab(shards, protocol=protocol, tasks=tasks, seed=request.seed)


def _open_orbit(shards: ShardSet, request: SamplerRequest) -> Orbit:
    names = [dataset.manifest.name for dataset in shards if has_user_videos(dataset)]
    if not names:
        raise UsageError(f"{shards.root} has no dataset of users' videos, which orbit needs")
    split = "train" if request.split is None else request.split
    protocol: Any = request.protocol or "2021"
    return Orbit(shards, split=split, protocol=protocol, dataset=names[0], seed=request.seed)


def _refuse(request: SamplerRequest, sampler: str, *names: str) -> None:
    """Refuse options that the sampler would ignore."""
    given = [f"--{name}" for name in names if getattr(request, name) is not None]
    if given:
        raise UsageError(f"{', '.join(given)}: {sampler} has no use for that; leave it out")
