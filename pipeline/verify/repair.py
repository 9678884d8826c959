"""Repair one dataset: build again what is damaged and nothing else.

Records, manifest, index and .idx are written again from what is intact. Damaged tars need the source,
which must still hold exactly what was built: it must give a plan with the same hash.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.build.engines import run_local
from pipeline.build.finalize import finalize, wids_text
from pipeline.build.images import library_versions
from pipeline.build.jobs import ShardJob, is_done, read_commit
from pipeline.build.plan import BuildPlan, make_plan, read_plan_header, write_plan
from pipeline.command import ProgressBar
from pipeline.errors import IntegrityError, SourceMissing, full_disk_is
from pipeline.index import DatasetManifest
from pipeline.layout import DatasetLayout, make_folder, remove_leftovers, write_atomically
from pipeline.process import usable_cores
from pipeline.records import Recipe
from pipeline.sources.base import Source
from pipeline.verify.damage import CheckReport
from pipeline.verify.dataset import check_dataset
from pipeline.verify.evidence import gather_evidence, read_index
from pipeline.verify.index_rows import IndexRows
from pipeline.verify.rederive import UNREADABLE
from pipeline.verify.tars import check_tar

log = logging.getLogger(__name__)


def needs_source(root: Path, report: CheckReport) -> bool:
    """Whether these problems can be repaired only from the source."""
    remedies = {problem.remedy for problem in report.problems}
    if remedies & {"shard", "plan"}:
        return True
    return "summary" in remedies and gather_evidence(DatasetLayout(root)).derived is None


def repair(
    root: str | Path,
    source: Source | None = None,
    *,
    report: CheckReport | None = None,
    workers: int = 0,
    quiet: bool = True,
) -> CheckReport:
    """Repair one dataset, check it again and return that report.

    With the `report` of an earlier check, the check before the repair is left out. Raises SourceMissing
    if the source is needed and not given, IntegrityError if it has changed or if damage remains.
    """
    layout, cores = DatasetLayout(Path(root)), workers or usable_cores()
    report = report or check_dataset(layout.root, workers=cores, quiet=quiet)
    if report.ok:
        return report
    if any(problem.kind == "unfinished" for problem in report.problems):
        raise SourceMissing(report.problems[0].what)
    remove_leftovers(layout.root)
    with full_disk_is(f"no space left to repair {layout.root}; free some and repeat"):
        if needs_source(layout.root, report):
            source = _require_source(source, layout, report)
            _rebuild_from_source(layout, source, report, cores, quiet=quiet)
        else:
            _rewrite_from_records(layout, report)
    after = check_dataset(layout.root, workers=cores, quiet=quiet)
    if not after.ok:
        raise IntegrityError(
            f"{layout.root} is still damaged after the repair: {after.problems[0]}; delete the "
            "folder and build it again"
        )
    return after


def _require_source(source: Source | None, layout: DatasetLayout, report: CheckReport) -> Source:
    if source is not None:
        return source
    first = next(p for p in report.problems if p.remedy in ("shard", "plan", "summary"))
    raise SourceMissing(f"{layout.root} can be mended only from its source ({first}); say where it lies")


def _rewrite_from_records(layout: DatasetLayout, report: CheckReport) -> None:
    """Write everything but tars and records again, without the source."""
    evidence = gather_evidence(layout)
    manifest = evidence.manifest
    assert manifest is not None
    if evidence.derived is not None:
        manifest = finalize(evidence.derived.plan, layout)
    else:
        for size, files in manifest.shards.items():
            write_atomically(layout.wids(size), wids_text(f"{manifest.name}-{size}", files))
    _write_idx(layout, manifest, report)


def _write_idx(layout: DatasetLayout, manifest: DatasetManifest, report: CheckReport) -> None:
    """Write damaged .idx files again from their tars."""
    damaged = [problem for problem in report.problems if problem.remedy == "idx"]
    if not damaged:
        return
    encodings = dict(zip(manifest.recipe.sizes, manifest.recipe.encodings, strict=True))
    rows = IndexRows(manifest, read_index(layout.index, manifest))
    for problem in damaged:
        path = layout.root / problem.file
        size = int(path.parent.name)
        samples = rows.of_tar(size, problem.shard)
        state = check_tar(path.with_suffix(".tar"), samples, encodings[size].extension)
        write_atomically(path, state.index)


def _rebuild_from_source(
    layout: DatasetLayout, source: Source, report: CheckReport, workers: int, *, quiet: bool
) -> None:
    """Make the plan again from the source, build the damaged shards, write the summary."""
    source, plan = _matching_plan(layout, source)
    before = {problem.shard for problem in report.problems if problem.remedy == "shard"}
    make_folder(layout.work)
    layout.plan.unlink(missing_ok=True)  # a plan that is there would stay, damaged or not
    write_plan(plan, layout.plan)
    job = ShardJob(source=source, recipe=plan.recipe, out=layout.root)
    damaged = sorted(before | {n for n in range(plan.shards) if not _is_usable(job, plan, n)})
    _warn_of_versions(layout, len(damaged), plan.shards)
    for shard in damaged:
        layout.commit(shard).unlink(missing_ok=True)
    total = sum(len(plan.rows(shard)) for shard in damaged)
    with ProgressBar(f"repair {plan.dataset}", total, quiet=quiet) as progress:
        for built in run_local(job, damaged, workers):
            progress.advance(len(plan.rows(built.shard)))
    _write_idx(layout, finalize(plan, layout), report)


def _is_usable(job: ShardJob, plan: BuildPlan, shard: int) -> bool:
    """Whether the shard's record is readable and belongs to this plan."""
    try:
        commit = read_commit(DatasetLayout(job.out).commit(shard))
        return commit.plan_hash == plan.hash and is_done(job, shard)
    except UNREADABLE:
        return False


def _matching_plan(layout: DatasetLayout, source: Source) -> tuple[Source, BuildPlan]:
    """The source as the build used it, and its plan. Raises IntegrityError if that is not what was built."""
    recorded = list(_recorded_recipes(layout))
    if not recorded:
        raise IntegrityError(
            f"neither {layout.manifest.name} nor the records of {layout.root} can be read, so "
            "nothing says how it was built; delete the folder and build it again"
        )
    hashes = {plan_hash for _, plan_hash in recorded}
    recipes: list[Recipe] = []
    for recipe, _ in recorded:
        recipes += [recipe] if recipe not in recipes else []
    for recipe in recipes:
        used = replace(source, scratch=layout.scratch, limit_per_class=recipe.limit_per_class)
        plan = make_plan(used.name, used.survey(), recipe)
        if plan.hash in hashes:
            return used, plan
    raise IntegrityError(
        f"{source.root} no longer holds what {layout.root} was built from (plan {plan.hash[:12]}, "
        f"built was {' or '.join(sorted(h[:12] for h in hashes))}): files were added, removed or "
        "renamed, or other options were used; restore the source, or build into a new folder"
    )


def _recorded_recipes(layout: DatasetLayout) -> Iterator[tuple[Recipe, str]]:
    """The recipe and the plan's hash, from plan and manifest: one of them may be the damaged file."""
    try:
        header = read_plan_header(layout.plan)
        yield header.recipe, header.hash
    except UNREADABLE as error:
        log.debug("%s: %s", layout.plan, error)
    try:
        manifest = DatasetManifest.read(layout.manifest)
        yield manifest.recipe, manifest.plan_hash
    except UNREADABLE as error:
        log.debug("%s: %s", layout.manifest, error)


def _warn_of_versions(layout: DatasetLayout, damaged: int, shards: int) -> None:
    """Warn where other library versions may round differently, and so change the shards' bytes."""
    here = library_versions()
    try:
        recorded = [dict(entry) for entry in DatasetManifest.read(layout.manifest).versions]
    except UNREADABLE:
        return
    if damaged and not any(here.items() <= entry.items() for entry in recorded):
        was, now = (", ".join(f"{k} {v}" for k, v in entry.items()) for entry in (recorded[0], here))
        log.warning(
            "%s was written with %s, and this machine has %s: the shards built again (%d of %d) "
            "may have other bytes, and so other checksums, than before",
            *(layout.root, was, now, damaged, shards),
        )
