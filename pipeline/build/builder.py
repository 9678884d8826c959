"""Build a dataset from a source: plan, run the jobs of the missing shards, finalize.

Everything is keyed by the plan's hash. So the same call continues where a killed one stopped, does
nothing when all is done, and refuses an output folder that holds something else.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.build.engines import array_part, run_local
from pipeline.build.finalize import finalize, problems_so_far
from pipeline.build.jobs import ShardJob, is_done
from pipeline.build.plan import BuildPlan, changed_files, make_plan, read_plan_header, write_plan
from pipeline.command import ProgressBar
from pipeline.constants import BYTES_PER_PIXEL
from pipeline.errors import FORBIDDEN, IntegrityError, UsageError, first_few, full_disk_is
from pipeline.index import DatasetManifest, is_dataset
from pipeline.layout import DatasetLayout, make_folder, remove_leftovers
from pipeline.process import usable_cores
from pipeline.records import Recipe, Rejected
from pipeline.settings import setting
from pipeline.sources.base import Source

CONCURRENT_BUILDERS: Final = 8  # builders of the same set at the same time
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How a build runs. No setting changes a byte of the output."""

    workers: int = setting(0, "processes (usable cores)", metavar="N")
    task: int = 0
    tasks: int = 1
    """This is task `task` of `tasks` of an array job."""
    strict: bool = False
    """A bad image is an error instead of being left out and listed."""
    quiet: bool = True
    """No progress on stderr."""

    def __post_init__(self) -> None:
        if not 0 <= self.task < self.tasks:
            raise UsageError(
                f"--task-index counts from 0 to --num-tasks - 1, got {self.task} of {self.tasks}"
            )
        if self.workers < 0:
            raise UsageError(f"--workers starts at 1, got {self.workers}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of a build."""

    out: Path
    plan: BuildPlan
    manifest: DatasetManifest | None
    """None while other array tasks have shards to build."""
    built: int
    """Shards built by this call."""
    rejected: tuple[Rejected, ...]
    damaged: tuple[Rejected, ...]
    """Images that were built although their files are damaged."""


def build_shards(
    source: Source, out: str | Path, recipe: Recipe | None = None, run: Run | None = None
) -> Report:
    """Build `source` into the folder `out`, or continue a build that stopped there."""
    recipe, run, layout = recipe or Recipe(), run or Run(), DatasetLayout(Path(out))
    source = replace(source, scratch=layout.scratch, limit_per_class=recipe.limit_per_class)
    with full_disk_is(
        f"no space left for {layout.root}; finished shards are kept, free some space and run the same command "
        "again"
    ):
        return _build_beside_others(source, layout, recipe, run)


def _build_beside_others(source: Source, layout: DatasetLayout, recipe: Recipe, run: Run) -> Report:
    """Build, and start again when another builder finishes this set and removes the scratch folder."""
    for _ in range(CONCURRENT_BUILDERS):
        try:
            return _build(source, layout, recipe, run)
        except FileNotFoundError as error:
            if str(layout.scratch) not in str(error.filename):
                raise
    return _build(source, layout, recipe, run)


def _build(source: Source, layout: DatasetLayout, recipe: Recipe, run: Run) -> Report:
    _check_output_folder(layout)
    plan = make_plan(source.name, source.survey(), recipe)
    _prepare_output_folder(layout)
    if (finished := _read_finished(layout, plan)) is not None:
        return _report(layout, plan, finished, built=0)
    _store_plan(layout, plan)
    _warn_of_space(layout, plan)
    built = _run_jobs(ShardJob(source=source, recipe=recipe, out=layout.root), plan, run)
    remove_leftovers(layout.root)  # again: a worker of a killed build may have lived a moment longer
    complete = all(layout.commit(shard).exists() for shard in range(plan.shards))
    return _report(layout, plan, finalize(plan, layout) if complete else None, built=built)


def _report(
    layout: DatasetLayout, plan: BuildPlan, manifest: DatasetManifest | None, *, built: int
) -> Report:
    if manifest is None:
        rejected, damaged = problems_so_far(plan, layout)
    else:
        rejected, damaged = manifest.quarantined, manifest.damaged
    return Report(
        out=layout.root, plan=plan, manifest=manifest, built=built, rejected=rejected, damaged=damaged
    )


def _check_output_folder(layout: DatasetLayout) -> None:
    """Refuse a folder that is not new, empty or a dataset; another builder may create it meanwhile."""
    if not layout.root.exists():
        return
    if not layout.root.is_dir():
        raise UsageError(f"--out {layout.root} is not a folder")
    names = sorted(entry.name for entry in layout.root.iterdir())
    if names and not is_dataset(layout.root):
        raise UsageError(
            f"--out {layout.root} holds other things ({first_few(names)}); name a new or empty folder"
        )


def _prepare_output_folder(layout: DatasetLayout) -> None:
    """Create the output folder and remove what killed processes left in it."""
    try:
        for folder in (layout.root, layout.work):
            make_folder(folder)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"--out {layout.root} is not a folder") from error
    except OSError as error:
        if error.errno not in FORBIDDEN:
            raise
        raise UsageError(f"--out {layout.root} cannot be written: {error.strerror}") from error
    remove_leftovers(layout.root)


def _read_finished(layout: DatasetLayout, plan: BuildPlan) -> DatasetManifest | None:
    """The manifest if this plan has been built, None if none has; another plan's is an error."""
    if not layout.manifest.exists():
        return None
    shutil.rmtree(layout.scratch, ignore_errors=True)
    manifest = DatasetManifest.read(layout.manifest)
    if manifest.plan_hash != plan.hash:
        _refuse_other_plan(layout, manifest.recipe, plan)
    _refuse_changed_files(layout, plan)
    return manifest


def _store_plan(layout: DatasetLayout, plan: BuildPlan) -> None:
    """Write the plan if there is none, then compare: another process may have written another one."""
    if not layout.plan.exists():
        write_plan(plan, layout.plan)
    header = read_plan_header(layout.plan)
    if header.hash != plan.hash:
        _refuse_other_plan(layout, header.recipe, plan)
    _refuse_changed_files(layout, plan)


def _refuse_changed_files(layout: DatasetLayout, plan: BuildPlan) -> None:
    if changed := changed_files(plan, layout.plan):
        raise UsageError(
            f"{len(changed):,} files of the source have other sizes than when {layout.root} was planned: "
            f"{first_few(changed)}; bring the old files back, name another --out, or delete that folder first"
        )


def _refuse_other_plan(layout: DatasetLayout, built: Recipe, plan: BuildPlan) -> None:
    there, asked = built.described(), plan.recipe.described()
    differences = [
        f"{name} {there[name]!r} there, {asked[name]!r} asked for"
        for name in asked
        if there[name] != asked[name]
    ]
    raise UsageError(
        f"{layout.root} was built from another plan "
        f"({'; '.join(differences) or 'the source holds other files now'}); name another --out, or "
        "delete that folder first"
    )


def _warn_of_space(layout: DatasetLayout, plan: BuildPlan) -> None:
    needed, free = estimated_bytes(plan), shutil.disk_usage(layout.root).free
    if needed > free:
        log.warning("%s will need about %.1f GB and %.1f GB are free", layout.root, needed / 1e9, free / 1e9)


def estimated_bytes(plan: BuildPlan) -> int:
    """An estimate of the tars' size."""
    per_sample = sum(
        size * size * BYTES_PER_PIXEL[encoding.format] + 2560  # three headers, class, json, padding
        for size, encoding in zip(plan.recipe.sizes, plan.recipe.encodings, strict=True)
    )
    return int(per_sample * plan.items.num_rows)


def _run_jobs(job: ShardJob, plan: BuildPlan, run: Run) -> int:
    """Build the missing shards of this task and return their number."""
    part = array_part(range(plan.shards), run.task, run.tasks)
    missing = [shard for shard in part if not is_done(job, shard)]
    total = sum(len(plan.rows(shard)) for shard in part)
    ready = total - sum(len(plan.rows(shard)) for shard in missing)
    bad = len(plan.rejected)
    _check_strict(plan, job, run, bad)
    with ProgressBar(plan.dataset, total, quiet=run.quiet) as progress:
        progress.advance(ready)
        for result in run_local(job, missing, run.workers or usable_cores()):
            bad += result.bad
            progress.advance(len(plan.rows(result.shard)), f"{bad} bad" if bad else "")
            _check_strict(plan, job, run, bad)
    return len(missing)


def _check_strict(plan: BuildPlan, job: ShardJob, run: Run, bad: int) -> None:
    if run.strict and bad:
        rejected, damaged = problems_so_far(plan, DatasetLayout(job.out))
        first = describe_rejected((*rejected, *damaged))
        raise IntegrityError(
            f"--strict: {bad} pictures of {plan.dataset} cannot be built or are damaged: {first}; mend or remove "
            "them, or build without --strict, which lists them, and leaves out what cannot be decoded"
        )


def describe_rejected(rejected: Sequence[Rejected]) -> str:
    """The first of the rejected images and why they were, for a message."""
    return first_few([f"{entry.name} ({entry.reason})" for entry in rejected], "; ")
