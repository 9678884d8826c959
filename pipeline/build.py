"""The offline command: any dataset becomes a verified shard set.

python -m pipeline.build --dataset demo
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from pipeline.builder import Report, Run, build_shards, estimated_bytes, named
from pipeline.command import parser, run_command
from pipeline.constants import SIZES
from pipeline.errors import SourceMissing, UsageError
from pipeline.plan import make_plan
from pipeline.records import Encoding, Recipe
from pipeline.sources import FAMILIES, NAMES, SourceOptions, find_member, needs, open_source
from pipeline.sources.base import Source

EXAMPLES: Final = """\
  python -m pipeline.build --dataset demo                          no download, a few seconds
  python -m pipeline.build --dataset omniglot --source downloads/omniglot
  python -m pipeline.build --dataset md --source downloads/md      every dataset found there
  python -m pipeline.build --dataset folder --source my/pictures --split-by folder
  python -m pipeline.build --dataset orbit --sizes 224 --workers 8 --dry-run
  sbatch --array=0-63 --wrap "python -m pipeline.build --dataset ilsvrc_2012 --engine array"
"""
TASK_VARIABLES: Final = (  # where schedulers tell an array task its number, and how many there are
    ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    ("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
)
log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Build one dataset, or every member of a family that is there; then say what was built."""
    arguments = _parser().parse_args(argv)
    recipe, run, options = _recipe(arguments), _run(arguments), _options(arguments)
    chosen = list(_chosen(arguments, options))
    if arguments.dry_run:
        _print_plans(chosen, recipe, as_json=arguments.json)
        return 0
    reports = [build_shards(source, out, recipe, run) for source, out in chosen]
    _print_reports(reports, as_json=arguments.json)
    return 0


def _chosen(arguments: Namespace, options: SourceOptions) -> Iterator[tuple[Source, Path]]:
    """Each source to build, and where to."""
    dataset, root = arguments.dataset, arguments.source or Path("data") / arguments.dataset
    out = arguments.out or Path("shards") / (arguments.name or dataset)
    if dataset not in FAMILIES:
        yield open_source(dataset, root, options), out
        return
    if arguments.name:
        raise UsageError(f"--name renames one dataset, and {dataset} is a family of them")
    places = {member: find_member(member, root) for member in FAMILIES[dataset]}
    missing = [f"  {needs(member)}" for member, place in places.items() if place is None]
    if len(missing) == len(places):
        raise SourceMissing(
            f"no dataset of {dataset} was found in {root} (each is looked for in {root}/<dataset>); "
            "what they need:\n" + "\n".join(missing)
        )
    if missing:
        log.warning(
            "%s of %s are not in %s:\n%s", len(missing), len(places), root, "\n".join(missing)
        )
    for member, place in places.items():
        if place is not None:
            yield open_source(member, place, options), out / member


def _print_plans(chosen: Sequence[tuple[Source, Path]], recipe: Recipe, *, as_json: bool) -> None:
    table = Table(
        "dataset", "classes", "images", "shards", "about", "bad", "out", title="would build"
    )
    rows = []
    for source, out in chosen:
        with (
            tempfile.TemporaryDirectory() as scratch
        ):  # an archive may have to be inflated to be listed
            listed = replace(source, scratch=Path(scratch), limit_per_class=recipe.limit_per_class)
            plan = make_plan(source.name, listed.survey(), recipe)
        count, size = plan.items.num_rows, estimated_bytes(plan)
        rows.append(
            {
                "dataset": plan.dataset,
                "classes": len(plan.classes),
                "images": count,
                "shards": plan.shards,
                "estimated_bytes": size,
                "rejected": [entry._asdict() for entry in plan.rejected],
                "out": str(out),
                "plan": plan.hash,
            }
        )
        table.add_row(
            plan.dataset, f"{len(plan.classes):,}", f"{count:,}", f"{plan.shards:,}",
            f"{size / 1e6:,.0f} MB", str(len(plan.rejected)), str(out),
        )  # fmt: skip
    _emit(table, rows, as_json=as_json)


def _print_reports(reports: Sequence[Report], *, as_json: bool) -> None:
    table = Table(
        "dataset", "classes", "images", "splits", "size on disk", "bad", "where", title="built"
    )
    rows: list[dict[str, object]] = []
    for report in reports:
        manifest, plan = report.manifest, report.plan
        rows.append(
            {
                "dataset": plan.dataset,
                "complete": manifest is not None,
                "built_shards": report.built,
                "classes": len(plan.classes),
                "images": manifest.samples if manifest else None,
                "splits": dict(manifest.splits) if manifest else None,
                "bytes": manifest.bytes if manifest else None,
                "quarantined": [entry._asdict() for entry in report.rejected],
                "out": str(report.out),
                "plan": plan.hash,
            }
        )
        state = "other tasks still have shards to build"
        if manifest is not None:
            splits = ", ".join(
                f"{count:,} {split or '-'}" for split, count in manifest.splits.items()
            )
            state = f"{manifest.bytes / 1e6:,.1f} MB"
        table.add_row(
            plan.dataset, f"{len(plan.classes):,}", f"{manifest.samples:,}" if manifest else "",
            splits if manifest else "", state, str(len(report.rejected)), str(report.out),
        )  # fmt: skip
    _emit(table, rows, as_json=as_json)
    for report in reports:
        if report.rejected:
            log.warning(
                "%s: %s bad pictures were left out: %s; all are listed in dataset.json",
                report.plan.dataset, f"{len(report.rejected):,}", named(report.rejected),
            )  # fmt: skip


def _emit(table: Table, rows: Sequence[dict[str, object]], *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
    else:
        Console().print(table)


def _recipe(arguments: Namespace) -> Recipe:
    wanted = dict(_encode_pair(text, arguments.sizes) for text in arguments.encode)
    recipe = Recipe(
        sizes=tuple(arguments.sizes),
        resize=arguments.resize,
        filter=arguments.filter,
        order=arguments.order,
        seed=arguments.seed,
        shard_samples=arguments.shard_samples,
        limit_per_class=arguments.limit_per_class,
    )
    pairs = zip(recipe.sizes, recipe.encodings, strict=True)
    return replace(recipe, encodings=tuple(wanted.get(size, default) for size, default in pairs))


def _encode_pair(text: str, sizes: Sequence[int]) -> tuple[int, Encoding]:
    size, _, encoding = text.partition("=")
    if not size.isdigit() or int(size) not in sizes:
        raise UsageError(
            f"--encode takes SIZE=ENCODING with a size out of {list(sizes)}, got {text!r}"
        )
    return int(size), Encoding.parse(encoding)


def _run(arguments: Namespace) -> Run:
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


def _options(arguments: Namespace) -> SourceOptions:
    return SourceOptions(
        name=arguments.name,
        split_by=arguments.split_by,
        protocol=arguments.protocol,
        frame_step=arguments.frame_step,
        max_frames=arguments.max_frames,
    )


def _parser() -> ArgumentParser:
    flags = parser("pipeline.build", "Turn a dataset into WebDataset shards.", EXAMPLES)
    what = flags.add_argument_group("what")
    what.add_argument(
        "--dataset", required=True, choices=[*NAMES, *FAMILIES], metavar="NAME",
        help=f"a family ({', '.join(FAMILIES)}: every member found) or one of {', '.join(NAMES)}",
    )  # fmt: skip
    what.add_argument("--source", type=Path, metavar="DIR", help="where it lies (data/NAME)")
    what.add_argument("--out", type=Path, metavar="DIR", help="where the shards go (shards/NAME)")
    what.add_argument("--name", default="", help="another name for the dataset")
    what.add_argument(
        "--split-by",
        default="",
        metavar="HOW",
        help="folder: 'folder', or a file of lines 'name split'",
    )
    what.add_argument(
        "--protocol",
        default="both",
        choices=["both", "vtab", "lite"],
        help="vtab: whose support and query sets (both)",
    )
    what.add_argument(
        "--frame-step", type=int, default=1, metavar="K", help="orbit: keep every K-th frame (1)"
    )
    what.add_argument(
        "--max-frames", type=int, metavar="K", help="orbit: at most K frames of a video"
    )
    what.add_argument(
        "--limit-per-class", type=int, metavar="K", help="at most K images of a class"
    )
    how = flags.add_argument_group("pictures")
    how.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=list(SIZES),
        metavar="PX",
        help="sides in pixels (84 224)",
    )
    how.add_argument(
        "--encode",
        nargs="+",
        default=[],
        metavar="PX=ENC",
        help="jpeg:QUALITY[:444], png or raw for a size (84=raw 224=jpeg:95)",
    )
    how.add_argument(
        "--resize",
        default="squash",
        choices=["squash", "crop"],
        help="the whole picture into a square, or its centre square (squash)",
    )
    how.add_argument(
        "--filter", default="lanczos", choices=["lanczos", "bicubic", "bilinear"], help="(lanczos)"
    )
    how.add_argument(
        "--order",
        default="class",
        choices=["class", "shuffled"],
        help="class: for episodes; shuffled: for plain streaming (class)",
    )
    how.add_argument("--seed", type=int, default=0, help="of the order (0)")
    how.add_argument(
        "--shard-samples",
        type=int,
        default=0,
        metavar="N",
        help="images in a shard (as suits the dataset)",
    )
    run = flags.add_argument_group("run")
    run.add_argument("--workers", type=int, default=0, metavar="N", help="processes (usable cores)")
    run.add_argument(
        "--engine",
        default="local",
        choices=["local", "array"],
        help="array: build one task's part; the last task finishes the set (local)",
    )
    run.add_argument("--task-index", type=int, metavar="I", help="array: this task, from 0")
    run.add_argument("--num-tasks", type=int, metavar="N", help="array: how many tasks there are")
    run.add_argument(
        "--strict",
        action="store_true",
        help="a bad picture ends the build instead of being left out and listed",
    )
    run.add_argument("--dry-run", action="store_true", help="list and plan, build nothing")
    run.add_argument("--quiet", action="store_true", help="no progress")
    run.add_argument("--json", action="store_true", help="the report as JSON")
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
