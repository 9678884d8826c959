"""The command `python -m pipeline.build`: any dataset becomes a verified shard set.

python -m pipeline.build --dataset demo
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from pipeline.build.builder import Report, build_shards, describe_rejected, estimated_bytes
from pipeline.build.flags import (
    ClassLimits,
    add_recipe_flags,
    add_run_flags,
    add_source_flags,
    recipe_from_flags,
    run_from_flags,
    source_options,
)
from pipeline.build.plan import make_plan
from pipeline.command import command_parser, run_command
from pipeline.errors import SourceMissing, UsageError
from pipeline.index import is_dataset
from pipeline.records import Recipe, Rejected
from pipeline.sources.base import Source
from pipeline.sources.catalogue import ENTRIES, FAMILIES, describe_needed_files, find_member, open_source
from pipeline.sources.meta_dataset import IMAGENET_V1, IMAGENET_V2

BUILD_EXAMPLES: Final = """\
  python -m pipeline.build --dataset demo                          no download, a few seconds
  python -m pipeline.build --dataset omniglot --source downloads/omniglot
  python -m pipeline.build --dataset md --source downloads/md --limit-per-class quickdraw=20000
                                                                   every dataset found there
  python -m pipeline.build --dataset folder --source my/pictures --split-by folder
  python -m pipeline.build --dataset orbit --sizes 224 --workers 8 --dry-run
  sbatch --array=0-63 --wrap "python -m pipeline.build --dataset ilsvrc_2012 --engine array"
"""
COLUMN_HEADINGS: Final = {
    "quarantined": "left out", "rejected": "left out", "estimated_bytes": "about", "bytes": "on disk"
}  # fmt: skip
log = logging.getLogger(__name__)


class ChosenBuild(NamedTuple):
    """One dataset to build: from where, into which folder, and how."""

    source: Source
    out: Path
    recipe: Recipe


def main(argv: Sequence[str] | None = None) -> int:
    """Build one dataset, or every member of a family that is there, and print a report."""
    arguments = _parser().parse_args(argv)
    recipe, run = recipe_from_flags(arguments), run_from_flags(arguments)
    members = FAMILIES.get(arguments.dataset, (arguments.dataset,))
    limits = ClassLimits.parse(arguments.class_limits, members)
    chosen = [
        ChosenBuild(source, out, replace(recipe, limit_per_class=limits.of(dataset)))
        for dataset, source, out in _chosen_sources(arguments)
    ]
    if arguments.dry_run:
        _print_plans(chosen, as_json=arguments.json)
        return 0
    reports = [build_shards(source, out, recipe, run) for source, out, recipe in chosen]
    _print_reports(reports, as_json=arguments.json)
    return 0


def _chosen_sources(arguments: Namespace) -> Iterator[tuple[str, Source, Path]]:
    """Each dataset to build, its source and its output folder."""
    options = source_options(arguments, arguments.name)
    dataset, root = arguments.dataset, arguments.source or Path("data") / arguments.dataset
    out = arguments.out or Path("shards") / (arguments.name or dataset)
    if dataset not in FAMILIES:
        yield dataset, open_source(dataset, root, options), out
        return
    if arguments.name:
        raise UsageError(f"--name renames one dataset, and {dataset} is a family of them")
    paths = {member: find_member(member, root, options) for member in FAMILIES[dataset]}
    absent = [member for member, path in paths.items() if path is None]
    missing = [f"  {describe_needed_files(member, root, options)}" for member in absent]
    if len(missing) == len(paths):
        raise SourceMissing(
            f"no dataset of {dataset} was found in {root} (each is looked for in {root}/<dataset>); "
            "what they need:\n" + "\n".join(missing)
        )
    if missing:
        log.warning("%s of %s are not in %s:\n%s", len(missing), len(paths), root, "\n".join(missing))
    for member, path in paths.items():
        if path is not None:
            yield member, open_source(member, path, options), out / member
    if paths.get(IMAGENET_V2) is not None and is_dataset(out / IMAGENET_V1):
        log.warning(
            "%s holds ImageNet twice: %s is Meta-Dataset's first version of it, which MD-v2 does not use and which "
            "--dataset %s built until %s took its place; delete it, or keep it for the first version",
            *(out, IMAGENET_V1, dataset, IMAGENET_V2),
        )


def _print_plans(chosen: Sequence[ChosenBuild], *, as_json: bool) -> None:
    rows: list[dict[str, object]] = []
    for source, out, recipe in chosen:
        with tempfile.TemporaryDirectory() as scratch:  # a .tgz must be inflated to be listed
            listed = replace(source, scratch=Path(scratch), limit_per_class=recipe.limit_per_class)
            plan = make_plan(source.name, listed.survey(), recipe)
        rows.append(
            {
                "dataset": plan.dataset,
                "classes": len(plan.classes),
                "images": plan.items.num_rows,
                "shards": plan.shards,
                "estimated_bytes": estimated_bytes(plan),
                "rejected": [entry._asdict() for entry in plan.rejected],
                "out": str(out),
                "plan": plan.hash,
            }
        )
    names = ("dataset", "classes", "images", "shards", "estimated_bytes", "rejected", "out")
    _print_rows("would build", names, rows, as_json=as_json)


def _print_reports(reports: Sequence[Report], *, as_json: bool) -> None:
    rows: list[dict[str, object]] = [
        {
            "dataset": report.plan.dataset,
            "complete": report.manifest is not None,
            "built_shards": report.built,
            "classes": len(report.plan.classes),
            "images": report.manifest.samples if report.manifest else None,
            "splits": dict(report.manifest.splits) if report.manifest else None,
            "bytes": report.manifest.bytes if report.manifest else None,
            "quarantined": [entry._asdict() for entry in report.rejected],
            "damaged": [entry._asdict() for entry in report.damaged],
            "out": str(report.out),
            "plan": report.plan.hash,
        }
        for report in reports
    ]
    names = ("dataset", "classes", "images", "splits", "bytes", "quarantined", "out")
    _print_rows("built", names, rows, as_json=as_json)
    for report in reports:
        if report.manifest is None:
            log.info("%s: this task's shards are built, other tasks have more", report.plan.dataset)
        _warn_of_images(report.plan.dataset, report.rejected, "bad pictures were left out")
        _warn_of_images(
            report.plan.dataset, report.damaged, "pictures were built with gaps, from damaged files"
        )


def _warn_of_images(dataset: str, images: Sequence[Rejected], what: str) -> None:
    if images:
        count, first = f"{len(images):,}", describe_rejected(images)
        log.warning("%s: %s %s: %s; all are listed in dataset.json", dataset, count, what, first)


def _print_rows(
    title: str, names: Sequence[str], rows: Sequence[dict[str, object]], *, as_json: bool
) -> None:
    """Print the rows as JSON, or some of their columns as a table."""
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        heading = COLUMN_HEADINGS.get(name, name)
        table.add_column(heading, overflow="fold", min_width=len(heading))
    for row in rows:
        table.add_row(*(_cell(name, row[name]) for name in names))
    Console().print(table)


def _cell(name: str, value: object) -> str:
    if name.endswith("bytes") and isinstance(value, int):
        return f"{value / 1e6:,.1f} MB"
    if isinstance(value, dict):
        return "\n".join(f"{count:,} {split or 'in no split'}" for split, count in value.items())
    if isinstance(value, list):
        return f"{len(value):,}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _parser() -> ArgumentParser:
    flags = command_parser("pipeline.build", "Turn a dataset into WebDataset shards.", BUILD_EXAMPLES)
    what = flags.add_argument_group("what")
    what.add_argument(
        "--dataset", required=True, choices=[*ENTRIES, *FAMILIES], metavar="NAME",
        help=f"a family ({', '.join(FAMILIES)}: every member found) or one of {', '.join(ENTRIES)}",
    )  # fmt: skip
    what.add_argument("--out", type=Path, metavar="DIR", help="where the shards go (shards/NAME)")
    what.add_argument("--name", default="", help="another name for the dataset")
    add_source_flags(what)
    add_recipe_flags(flags.add_argument_group("pictures"))
    run = flags.add_argument_group("run")
    add_run_flags(run)
    run.add_argument("--dry-run", action="store_true", help="list and plan, build nothing")
    run.add_argument("--json", action="store_true", help="the report as JSON")
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
