"""The flags of a build, and what they become: source options, a recipe, a run."""

from __future__ import annotations

import os
from argparse import Namespace, _ArgumentGroup
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pipeline.build.builder import Run
from pipeline.constants import SIZES
from pipeline.errors import UsageError
from pipeline.records import Encoding, Recipe
from pipeline.sources.catalogue import SourceOptions

TASK_VARIABLES: Final = (  # where schedulers tell an array task its number, and how many there are
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
)


def add_source_flags(group: _ArgumentGroup) -> None:
    """Where a source lies and what some sources can be asked for."""
    group.add_argument("--source", type=Path, metavar="DIR", help="where it lies (data/NAME)")
    group.add_argument(
        "--split-by",
        default="",
        metavar="HOW",
        help="folder: 'folder', or a file of lines 'name split'",
    )
    group.add_argument(
        "--protocol",
        default="both",
        choices=["both", "vtab", "lite"],
        help="vtab: whose support and query sets (both)",
    )
    group.add_argument(
        "--frame-step", type=int, default=1, metavar="K", help="orbit: keep every K-th frame (1)"
    )
    group.add_argument(
        "--max-frames", type=int, metavar="K", help="orbit: at most K frames of a video"
    )


def add_picture_flags(group: _ArgumentGroup) -> None:
    """What decides the bytes."""
    group.add_argument(
        "--limit-per-class", type=int, metavar="K", help="at most K images of a class"
    )
    group.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=list(SIZES),
        metavar="PX",
        help="sides in pixels (84 224)",
    )
    group.add_argument(
        "--encode",
        nargs="+",
        default=[],
        metavar="PX=ENC",
        help="jpeg:QUALITY[:444], png or raw for a size (84=raw 224=jpeg:95)",
    )
    group.add_argument(
        "--resize",
        default="squash",
        choices=["squash", "crop"],
        help="the whole picture into a square, or its centre square (squash)",
    )
    group.add_argument(
        "--filter",
        default="lanczos",
        choices=["lanczos", "bicubic", "bilinear"],
        help="how pictures are made smaller (lanczos)",
    )
    group.add_argument(
        "--order",
        default="class",
        choices=["class", "shuffled"],
        help="class: for episodes; shuffled: for plain streaming (class)",
    )
    group.add_argument("--seed", type=int, default=0, help="of the order (0)")
    group.add_argument(
        "--shard-samples",
        type=int,
        default=0,
        metavar="N",
        help="images in a shard (as suits the dataset)",
    )


def add_run_flags(group: _ArgumentGroup) -> None:
    """How it is done; nothing here changes a byte."""
    group.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes (usable cores)"
    )
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
        help="a bad picture ends the build instead of being left out and listed",
    )
    group.add_argument("--quiet", action="store_true", help="no progress")


def source_options(arguments: Namespace, name: str) -> SourceOptions:
    """What the flags for the source say."""
    return SourceOptions(
        name=name,
        split_by=arguments.split_by,
        protocol=arguments.protocol,
        frame_step=arguments.frame_step,
        max_frames=arguments.max_frames,
    )


def recipe_of(arguments: Namespace) -> Recipe:
    """What the flags for pictures say."""
    wanted = dict(_encode_pair(text, arguments.sizes) for text in arguments.encode)
    chosen = Recipe(
        sizes=tuple(arguments.sizes),
        resize=arguments.resize,
        filter=arguments.filter,
        order=arguments.order,
        seed=arguments.seed,
        shard_samples=arguments.shard_samples,
        limit_per_class=arguments.limit_per_class,
    )
    pairs = zip(chosen.sizes, chosen.encodings, strict=True)
    return replace(chosen, encodings=tuple(wanted.get(size, default) for size, default in pairs))


def _encode_pair(text: str, sizes: Sequence[int]) -> tuple[int, Encoding]:
    size, _, encoding = text.partition("=")
    if not size.isdigit() or int(size) not in sizes:
        raise UsageError(
            f"--encode takes SIZE=ENCODING with a size out of {list(sizes)}, got {text!r}"
        )
    return int(size), Encoding.parse(encoding)


def run_of(arguments: Namespace) -> Run:
    """What the flags for the run say, or the scheduler."""
    task, tasks = arguments.task_index, arguments.num_tasks
    if arguments.engine == "array" and task is None:
        task, tasks = _task_of_scheduler(tasks)
    if (task is None) != (tasks is None):
        raise UsageError("--task-index and --num-tasks go together")
    return Run(
        workers=arguments.workers,
        task=task or 0,
        tasks=1 if tasks is None else tasks,
        strict=arguments.strict,
        quiet=arguments.quiet,
    )


def _task_of_scheduler(tasks: int | None) -> tuple[int, int]:
    for index, count in TASK_VARIABLES:
        if index in os.environ and (tasks or count in os.environ):
            return int(os.environ[index]), tasks or int(os.environ[count])
    raise UsageError(
        "--engine array needs --task-index and --num-tasks, or a scheduler that sets "
        + " or ".join(f"{index} and {count}" for index, count in TASK_VARIABLES)
    )
