"""Episode plans in a file: save them, and replay the same episodes later.

The file has one JSON object a line: a header with the builds of the datasets that the row numbers refer
to, a line for each plan with its digest, and a last line with the number of plans.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.episodes import EpisodePlan, all_below, plan_problem
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.index import Dataset
from pipeline.layout import atomic_file
from pipeline.samplers.mixture import checked_seed
from pipeline.settings import typed
from pipeline.shardset import ShardSet

PLANS_FORMAT: Final = 1  # raised when older files can no longer be read


@dataclass(frozen=True)
class SavedBuild:
    """What decides the meaning of a row number: the hash of the build's plan, and its number of samples."""

    plan: str
    samples: int


@dataclass(frozen=True)
class PlansHeader:
    """The first line of a file of plans."""

    format: int
    datasets: dict[str, SavedBuild]


def save_plans(path: str | Path, plans: Iterable[EpisodePlan], shards: ShardSet) -> int:
    """Write a finite number of plans to a file, completely or not at all; returns how many."""
    count = 0
    builds = {dataset.manifest.name: _build_of(dataset) for dataset in shards}
    with atomic_file(Path(path)) as file:
        file.write(_json_line(asdict(PlansHeader(PLANS_FORMAT, builds))))
        for plan in plans:
            if problem := _set_problem(plan, shards):
                raise UsageError(f"plan {count} (episode {plan.number}) {problem}")
            file.write(_json_line({**plan.described(), "digest": plan.digest}))
            count += 1
        file.write(_json_line({"plans": count}))
    return count


class Replay:
    """The plans of a file, in its order: `sampler[i]` is plan i, with the number it was saved with.

    The file must be complete, and the shard set must hold the builds that it was saved for.
    seed: what the loader draws H from; give the first sampler's to have the same H.
    """

    def __init__(self, path: str | Path, shards: ShardSet, *, seed: int = 0) -> None:
        self.path, self.seed = Path(path), checked_seed(seed)
        try:
            lines = self.path.read_bytes().splitlines()
        except FileNotFoundError:
            raise SourceMissing(f"{path} is not there; save_plans writes such files") from None
        if not lines:
            raise IntegrityError(f"{path} is empty; save the plans again")
        builds = _read_builds(self.path, lines[0])
        _check_builds(self.path, builds, shards)
        end = _parsed_line(self.path, len(lines), lines[-1])
        if end != {"plans": len(lines) - 2}:
            raise IntegrityError(
                f"{path} should end with the number of its plans and is cut short or put together: "
                f"it has {len(lines):,} lines; save the plans again"
            )
        self._plans = [
            _read_plan(self.path, number, line, shards) for number, line in enumerate(lines[1:-1], start=2)
        ]
        if unknown := {plan.dataset for plan in self._plans} - set(builds):
            raise IntegrityError(
                f"{path} has plans of {', '.join(sorted(unknown))} and its first line does not name "
                "the build; save the plans again"
            )

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, number: int, /) -> EpisodePlan:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path} has {len(self):,} plans, from 0; got {number}")
        return self._plans[number]

    def __repr__(self) -> str:
        return f"Replay({str(self.path)!r}, {len(self):,} plans, seed={self.seed})"


def _build_of(dataset: Dataset) -> SavedBuild:
    return SavedBuild(dataset.manifest.plan_hash, dataset.manifest.samples)


def _read_builds(path: Path, line: bytes) -> dict[str, SavedBuild]:
    """The build of each dataset that a file was saved for."""
    header = _parsed_line(path, 1, line)
    if header.get("format") != PLANS_FORMAT:
        raise IntegrityError(
            f"{path} is no file of plans of format {PLANS_FORMAT}: its first line has "
            f"{header.get('format')!r}; save the plans again"
        )
    return typed(header, PlansHeader, f"{path}, line 1, is damaged").datasets


def _check_builds(path: Path, builds: Mapping[str, SavedBuild], shards: ShardSet) -> None:
    for dataset in shards:
        name, build = dataset.manifest.name, _build_of(dataset)
        if builds.get(name, build) != build:
            raise IntegrityError(
                f"{path} was saved for another build of {name}, so its row numbers mean other images: "
                f"{json.dumps(asdict(builds[name]))} there, {json.dumps(asdict(build))} in {shards.root}; "
                "open the shard set it was saved with, or save the plans again"
            )


def _json_line(values: Mapping[str, object]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _parsed_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged_line(path, number, str(error)) from error
    if not isinstance(values, dict):
        raise _damaged_line(path, number, f"it is a {type(values).__name__}")
    return values


def _read_plan(path: Path, number: int, line: bytes, shards: ShardSet) -> EpisodePlan:
    values = _parsed_line(path, number, line)
    digest = values.pop("digest", "")
    try:
        plan = EpisodePlan.from_described(values)
    except (IntegrityError, UsageError) as error:
        raise _damaged_line(path, number, str(error)) from error
    if plan.digest != digest:
        raise _damaged_line(path, number, "its hash does not match")
    if problem := _set_problem(plan, shards):
        raise IntegrityError(f"{path}, line {number}: episode {plan.number} {problem}")
    return plan


def _damaged_line(path: Path, number: int, how: str) -> IntegrityError:
    return IntegrityError(f"{path}, line {number}, is damaged ({how}); save the plans again")


def _set_problem(plan: EpisodePlan, shards: ShardSet) -> str:
    """Why a plan cannot be loaded from this shard set; "" if it can."""
    if plan.dataset not in shards.datasets:
        held = ", ".join(shards.datasets)
        return f"is of the dataset {plan.dataset!r}, and {shards.root} has {held}"
    dataset = shards.datasets[plan.dataset]
    if problem := plan_problem(plan, len(dataset.index)):
        return f"does not fit: {problem}"
    if not all_below(np.array(plan.classes, np.int64), len(dataset.manifest.classes)):
        return f"has classes beyond the {len(dataset.manifest.classes):,} of {plan.dataset}"
    return ""
