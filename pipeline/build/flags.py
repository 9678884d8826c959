"""The flags of a build, and the records that they become: source options, a recipe, a run."""

from __future__ import annotations

import os
from argparse import Namespace, _ArgumentGroup
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from pipeline.build.builder import Run
from pipeline.constants import DEFAULT_ENCODINGS
from pipeline.errors import UsageError
from pipeline.records import Encoding, Recipe
from pipeline.settings import add_flags, given_flags
from pipeline.sources.catalogue import SourceOptions

TASK_VARIABLES: Final = (  # where schedulers tell an array task its number, and how many there are
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassLimits:
    """How many images of a class are built at most: of any dataset, and of single ones."""

    usual: int | None = None
    by_dataset: Mapping[str, int] = field(default_factory=dict)

    def of(self, dataset: str) -> int | None:
        """The limit of a dataset, or None."""
        return self.by_dataset.get(dataset, self.usual)

    @classmethod
    def parse(cls, texts: Sequence[str], datasets: Sequence[str]) -> ClassLimits:
        """Read K and NAME=K, of the datasets that the build is about."""
        limits: dict[str, int] = {}
        for text in texts:
            name, equals, number = text.rpartition("=")
            if equals and name not in datasets:
                raise UsageError(_unknown_dataset(name, datasets))
            if name in limits:
                raise UsageError(
                    f"--limit-per-class has two limits for {name or 'all datasets'}; leave one out"
                )
            limits[name] = _class_limit(text, name, number)
        return cls(usual=limits.pop("", None), by_dataset=limits)


def _unknown_dataset(name: str, datasets: Sequence[str]) -> str:
    close = get_close_matches(name, datasets, 1)
    advice = f"{close[0]!r} may be meant" if close else f"the build is about {', '.join(datasets)}"
    return f"--limit-per-class names {name!r}, which is none of the datasets to build; {advice}"


def _class_limit(text: str, name: str, number: str) -> int:
    try:
        limit = int(number)
    except ValueError:
        raise UsageError(f"--limit-per-class takes numbers K or NAME=K, got {text!r}") from None
    if limit < 1:
        raise UsageError(f"--limit-per-class starts at 1, got {limit}{name and f' for {name}'}")
    return limit


def add_source_flags(group: _ArgumentGroup) -> None:
    """Flags for where a source lies, and for the options of some sources."""
    group.add_argument("--source", type=Path, metavar="DIR", help="where it lies (data/NAME)")
    add_flags(group, SourceOptions)


def add_recipe_flags(group: _ArgumentGroup) -> None:
    """Flags for what decides the bytes."""
    usual = " ".join(f"{size}={encoding}" for size, encoding in DEFAULT_ENCODINGS.items())
    add_flags(group, Recipe)
    group.add_argument(
        "--encode",
        nargs="+",
        default=[],
        metavar="PX=ENC",
        help=f"jpeg:QUALITY[:444], png or raw for a size ({usual})",
    )
    group.add_argument(
        "--limit-per-class",
        dest="class_limits",
        nargs="+",
        default=[],
        metavar="LIMIT",
        help="at most K images of a class: K, or NAME=K for one dataset of a family",
    )


def add_run_flags(group: _ArgumentGroup) -> None:
    """Flags for how the build runs; none of them changes a byte."""
    add_flags(group, Run)
    group.add_argument(
        "--engine",
        default="local",
        choices=["local", "array"],
        help="array: build one task's part; the last task finishes the set (local)",
    )
    group.add_argument("--task-index", type=int, metavar="I", help="array: this task, from 0")
    group.add_argument("--num-tasks", type=int, metavar="N", help="array: how many tasks there are")
    group.add_argument(
        "--strict",
        action="store_true",
        help="a bad image ends the build instead of being listed and, if it cannot be decoded, left out",
    )
    group.add_argument("--quiet", action="store_true", help="no progress")


def source_options(arguments: Namespace, name: str) -> SourceOptions:
    """The options of a source that a command line gave."""
    return SourceOptions(**{**given_flags(arguments, SourceOptions), "name": name})


def recipe_from_flags(arguments: Namespace) -> Recipe:
    """The recipe that a command line gave."""
    recipe = Recipe(**given_flags(arguments, Recipe))
    chosen = dict(_encode_pair(text, recipe.sizes) for text in arguments.encode)
    pairs = zip(recipe.sizes, recipe.encodings, strict=True)
    return replace(recipe, encodings=tuple(chosen.get(size, usual) for size, usual in pairs))


def _encode_pair(text: str, sizes: Sequence[int]) -> tuple[int, Encoding]:
    size, _, encoding = text.partition("=")
    if not size.isdigit() or int(size) not in sizes:
        raise UsageError(f"--encode takes SIZE=ENCODING with a size out of {list(sizes)}, got {text!r}")
    return int(size), Encoding.parse(encoding)


def run_from_flags(arguments: Namespace) -> Run:
    """How to run, from the command line; an array task's number also from the scheduler."""
    task, tasks = arguments.task_index, arguments.num_tasks
    if arguments.engine == "array" and task is None:
        task, tasks = _task_from_scheduler(tasks)
    if (task is None) != (tasks is None):
        raise UsageError("--task-index and --num-tasks go together")
    return Run(**given_flags(arguments, Run), **({} if task is None else {"task": task, "tasks": tasks}))


def _task_from_scheduler(tasks: int | None) -> tuple[int, int]:
    for index, count in TASK_VARIABLES:
        if index in os.environ and (tasks or count in os.environ):
            return int(os.environ[index]), tasks or int(os.environ[count])
    raise UsageError(
        "--engine array needs --task-index and --num-tasks, or a scheduler that sets "
        + " or ".join(f"{index} and {count}" for index, count in TASK_VARIABLES)
    )
