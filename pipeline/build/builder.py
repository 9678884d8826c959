"""A source becomes a built dataset: plan, run the jobs that are missing, finalize.

Everything is keyed by the plan's hash, so the same call goes on where a killed one stopped, does
nothing when all is done, and refuses an output that holds something else.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pipeline.build.engines import array_part, local
from pipeline.build.finalize import all_rejected, finalize
from pipeline.build.jobs import Job, is_done
from pipeline.build.plan import Plan, make_plan, read_plan_header, write_plan
from pipeline.command import Progress
from pipeline.constants import BYTES_PER_PIXEL
from pipeline.errors import IntegrityError, OutOfSpace, UsageError
from pipeline.index import Manifest
from pipeline.layout import Layout, sweep
from pipeline.process import usable_cores
from pipeline.records import Recipe, Rejected
from pipeline.sources.base import Source

NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
OTHERS: Final = 8  # builders of the same set at the same time
SHOWN: Final = 5  # quarantined items named in a message
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """How to build, as opposed to what: nothing here changes a byte of the output."""

    workers: int = 0
    """Processes; 0: one for each usable core."""
    task: int = 0
    tasks: int = 1
    """This is task `task` of `tasks` of an array job."""
    strict: bool = False
    """A bad picture is an error instead of a quarantine entry."""
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
    """What a build came to."""

    out: Path
    plan: Plan
    manifest: Manifest | None
    """None while other array tasks have shards to build."""
    built: int
    """Shards built by this call."""
    rejected: tuple[Rejected, ...]


def build_shards(
    source: Source, out: str | Path, recipe: Recipe | None = None, run: Run | None = None
) -> Report:
    """Build `source` into the folder `out`, or go on with a build that stopped there."""
    recipe, run, layout = recipe or Recipe(), run or Run(), Layout(Path(out))
    source = replace(source, scratch=layout.scratch, limit_per_class=recipe.limit_per_class)
    try:
        return _build_beside(OTHERS, source, layout, recipe, run)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise OutOfSpace(
            f"no space left for {layout.root} ({error.strerror}); finished shards are kept, free some "
            "space and run the same command again"
        ) from error


def _build_beside(others: int, source: Source, layout: Layout, recipe: Recipe, run: Run) -> Report:
    """Build; once more for each of so many who finish this very set and tidy up what is being read here."""
    try:
        return _build(source, layout, recipe, run)
    except FileNotFoundError as error:
        if str(layout.scratch) not in str(error.filename) or not others:
            raise
    return _build_beside(others - 1, source, layout, recipe, run)


def _build(source: Source, layout: Layout, recipe: Recipe, run: Run) -> Report:
    _refuse_strangers(layout)
    plan = make_plan(source.name, source.survey(), recipe)
    _claim(layout)
    if (finished := _finished(layout, plan)) is not None:
        return _report(layout, plan, finished, built=0)
    _keep_plan(layout, plan)
    _warn_of_space(layout, plan)
    built = _run_jobs(Job(source=source, recipe=recipe, out=layout.root), plan, run)
    sweep(layout.root)  # once more: a worker of a killed build may have lived on for a moment
    complete = all(layout.commit(shard).exists() for shard in range(plan.shards))
    return _report(layout, plan, finalize(plan, layout) if complete else None, built=built)


def _report(layout: Layout, plan: Plan, manifest: Manifest | None, *, built: int) -> Report:
    rejected = all_rejected(plan, layout) if manifest is None else manifest.quarantined
    return Report(out=layout.root, plan=plan, manifest=manifest, built=built, rejected=rejected)


def _refuse_strangers(layout: Layout) -> None:
    """An output folder is new, empty, or a build of ours; another builder may make it at this moment."""
    if not layout.root.exists():
        return
    if not layout.root.is_dir():
        raise UsageError(f"--out {layout.root} is not a folder")
    found = sorted(entry.name for entry in layout.root.iterdir())
    if found and not layout.work.is_dir() and not layout.manifest.exists():
        raise UsageError(
            f"--out {layout.root} holds other things ({', '.join(found[:SHOWN])}); "
            "name a new or empty folder"
        )


def _claim(layout: Layout) -> None:
    """Make the output folder, and tidy up after processes that were killed in it."""
    try:
        layout.work.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"--out {layout.root} is not a folder") from error
    except PermissionError as error:
        raise UsageError(f"--out {layout.root} cannot be written: {error.strerror}") from error
    sweep(layout.root)


def _finished(layout: Layout, plan: Plan) -> Manifest | None:
    """The manifest, if exactly this plan has been built; an error if another one has."""
    if not layout.manifest.exists():
        return None
    shutil.rmtree(layout.scratch, ignore_errors=True)
    manifest = Manifest.read(layout.manifest)
    if manifest.plan_hash != plan.hash:
        _refuse(layout, manifest.recipe.described(), plan)
    return manifest


def _keep_plan(layout: Layout, plan: Plan) -> None:
    """Write the plan where there is none, then see whose it is: another process may be faster."""
    if not layout.plan.exists():
        write_plan(plan, layout.plan)
    header = read_plan_header(layout.plan)
    if header["hash"] != plan.hash:
        _refuse(layout, header["recipe"], plan)


def _refuse(layout: Layout, found: dict[str, object], plan: Plan) -> None:
    wanted = plan.recipe.described()
    differences = [
        f"{name} {found.get(name)!r} there, {wanted[name]!r} asked for"
        for name in wanted
        if found.get(name) != wanted[name]
    ]
    raise UsageError(
        f"{layout.root} was built from another plan "
        f"({'; '.join(differences) or 'the source holds other files now'}); name another --out, or "
        "delete that folder first"
    )


def _warn_of_space(layout: Layout, plan: Plan) -> None:
    needed, free = estimated_bytes(plan), shutil.disk_usage(layout.root).free
    if needed > free:
        log.warning(
            "%s will need about %.1f GB and %.1f GB are free", layout.root, needed / 1e9, free / 1e9
        )


def estimated_bytes(plan: Plan) -> int:
    """About how large the tars will be."""
    per_sample = sum(
        size * size * BYTES_PER_PIXEL[encoding.format] + 2560  # three headers, class, json, padding
        for size, encoding in zip(plan.recipe.sizes, plan.recipe.encodings, strict=True)
    )
    return int(per_sample * plan.items.num_rows)


def _run_jobs(job: Job, plan: Plan, run: Run) -> int:
    """Build what is missing; how many shards that was."""
    part = array_part(range(plan.shards), run.task, run.tasks)
    missing = [shard for shard in part if not is_done(job, shard)]
    total = sum(len(plan.rows(shard)) for shard in part)
    ready = total - sum(len(plan.rows(shard)) for shard in missing)
    rejected = len(plan.rejected)
    _check_strict(plan, job, run, rejected)
    with Progress(plan.dataset, total, quiet=run.quiet) as progress:
        progress.advance(ready)
        for done in local(job, missing, run.workers or usable_cores()):
            rejected += done.rejected
            progress.advance(len(plan.rows(done.shard)), f"{rejected} bad" if rejected else "")
            _check_strict(plan, job, run, rejected)
    return len(missing)


def _check_strict(plan: Plan, job: Job, run: Run, rejected: int) -> None:
    if run.strict and rejected:
        raise IntegrityError(
            f"--strict: {rejected} pictures of {plan.dataset} cannot be built: "
            f"{named(all_rejected(plan, Layout(job.out)))}; mend or remove them, or build without "
            "--strict, which leaves them out and lists them"
        )


def named(rejected: Sequence[Rejected]) -> str:
    """The first few, for a message."""
    first = "; ".join(f"{entry.name} ({entry.reason})" for entry in rejected[:SHOWN])
    return first + (f"; and {len(rejected) - SHOWN} more" if len(rejected) > SHOWN else "")
