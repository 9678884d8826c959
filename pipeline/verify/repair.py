"""Mend one dataset: build again what is damaged and nothing else.

Records, manifest, index and .idx are written again from what is intact. Damaged tars need the
source, and it must still hold exactly what was built: the same plan, by its hash.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.build.builder import NO_SPACE
from pipeline.build.engines import local
from pipeline.build.finalize import finalize, wids_text
from pipeline.build.images import versions
from pipeline.build.jobs import Job, is_done, read_commit
from pipeline.build.plan import Plan, make_plan, read_plan_header, write_plan
from pipeline.command import Progress
from pipeline.errors import IntegrityError, OutOfSpace, SourceMissing
from pipeline.index import Manifest
from pipeline.layout import Layout, sweep, write_whole
from pipeline.process import usable_cores
from pipeline.records import Recipe
from pipeline.sources.base import Source
from pipeline.verify.damage import Problem, Report
from pipeline.verify.dataset import check_dataset
from pipeline.verify.evidence import gather
from pipeline.verify.rederive import UNREADABLE, read_index
from pipeline.verify.rows import Rows
from pipeline.verify.tars import check_tar

log = logging.getLogger(__name__)


def needs_source(root: Path, report: Report) -> bool:
    """Whether these problems can be mended only with the source at hand."""
    remedies = {problem.remedy for problem in report.problems}
    if remedies & {"shard", "plan"}:
        return True
    return "summary" in remedies and gather(Layout(root)).derived is None


def repair(
    root: str | Path,
    source: Source | None = None,
    *,
    report: Report | None = None,
    workers: int = 0,
    quiet: bool = True,
) -> Report:
    """Mend one dataset; the report of the check afterwards.

    `report` saves the check before. Raises SourceMissing if the source is needed and not given,
    IntegrityError if it has changed or if damage remains.
    """
    layout, cores = Layout(Path(root)), workers or usable_cores()
    report = report or check_dataset(layout.root, workers=cores, quiet=quiet)
    if report.ok:
        return report
    if any(problem.kind == "unfinished" for problem in report.problems):
        raise SourceMissing(report.problems[0].what)
    sweep(layout.root)
    try:
        if needs_source(layout.root, report):
            _from_source(layout, _given(source, layout, report), report, cores, quiet=quiet)
        else:
            _from_records(layout, report.problems)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise OutOfSpace(
            f"no space left to repair {layout.root} ({error.strerror}); free some and repeat"
        ) from error
    after = check_dataset(layout.root, workers=cores, quiet=quiet)
    if not after.ok:
        raise IntegrityError(
            f"{layout.root} is still damaged after the repair: {after.problems[0]}; delete the "
            "folder and build it again"
        )
    return after


def _given(source: Source | None, layout: Layout, report: Report) -> Source:
    if source is not None:
        return source
    first = next(p for p in report.problems if p.remedy in ("shard", "plan", "summary"))
    raise SourceMissing(
        f"{layout.root} can be mended only from its source ({first}); say where it lies"
    )


def _from_records(layout: Layout, problems: tuple[Problem, ...]) -> None:
    """Everything but tars and records: the source is not needed."""
    evidence = gather(layout)
    manifest = evidence.manifest
    assert manifest is not None
    if evidence.derived is not None:
        manifest = finalize(evidence.derived.plan, layout)
    else:
        for size, files in manifest.shards.items():
            write_whole(layout.wids(size), wids_text(f"{manifest.name}-{size}", files))
    _write_idx(layout, manifest, problems)


def _write_idx(layout: Layout, manifest: Manifest, problems: tuple[Problem, ...]) -> None:
    """The .idx files again, from their tars."""
    damaged = [problem for problem in problems if problem.remedy == "idx"]
    if not damaged:
        return
    encodings = dict(zip(manifest.recipe.sizes, manifest.recipe.encodings, strict=True))
    rows = Rows(manifest, read_index(layout.index))
    for problem in damaged:
        path = layout.root / problem.file
        size = int(path.parent.name)
        expected = rows.of(size, problem.shard)
        state = check_tar(path.with_suffix(".tar"), expected, encodings[size].extension)
        write_whole(path, state.index)


def _from_source(
    layout: Layout, source: Source, report: Report, workers: int, *, quiet: bool
) -> None:
    """The plan again from the source, the damaged shards from both, then the summary."""
    source, plan = _same_plan(layout, source)
    before = {problem.shard for problem in report.problems if problem.remedy == "shard"}
    layout.work.mkdir(exist_ok=True)
    layout.plan.unlink(missing_ok=True)  # a plan that is there would stay, damaged or not
    write_plan(plan, layout.plan)
    job = Job(source=source, recipe=plan.recipe, out=layout.root)
    damaged = sorted(before | {n for n in range(plan.shards) if not _usable(job, plan, n)})
    _warn_of_versions(layout, len(damaged), plan.shards)
    for shard in damaged:
        layout.commit(shard).unlink(missing_ok=True)
    total = sum(len(plan.rows(shard)) for shard in damaged)
    with Progress(f"repair {plan.dataset}", total, quiet=quiet) as progress:
        for done in local(job, damaged, workers):
            progress.advance(len(plan.rows(done.shard)))
    _write_idx(layout, finalize(plan, layout), report.problems)


def _usable(job: Job, plan: Plan, shard: int) -> bool:
    """Whether the shard's record is there, readable and of this plan."""
    try:
        commit = read_commit(Layout(job.out).commit(shard))
        return commit.plan_hash == plan.hash and is_done(job, shard)
    except UNREADABLE:
        return False


def _same_plan(layout: Layout, source: Source) -> tuple[Source, Plan]:
    """The source as the build used it, and the plan it gives, if that is the plan that was built."""
    recipes, hashes = _recorded(layout)
    if not recipes:
        raise IntegrityError(
            f"neither {layout.manifest.name} nor the records of {layout.root} can be read, so "
            "nothing says how it was built; delete the folder and build it again"
        )
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


def _recorded(layout: Layout) -> tuple[list[Recipe], set[str]]:
    """All readable accounts of the recipe and the plan's hash: one of them may be the damaged one."""
    recipes: list[Recipe] = []
    hashes: set[str] = set()
    for recipe, plan_hash in _accounts(layout):
        recipes += [recipe] if recipe not in recipes else []
        hashes.add(plan_hash)
    return recipes, hashes


def _accounts(layout: Layout) -> Iterator[tuple[Recipe, str]]:
    try:
        header = read_plan_header(layout.plan)
        yield Recipe.from_described(header["recipe"]), str(header["hash"])
    except UNREADABLE as error:
        log.debug("%s: %s", layout.plan, error)
    try:
        manifest = Manifest.read(layout.manifest)
        yield manifest.recipe, manifest.plan_hash
    except UNREADABLE as error:
        log.debug("%s: %s", layout.manifest, error)


def _warn_of_versions(layout: Layout, damaged: int, shards: int) -> None:
    """Say when the rebuilt shards may differ from the first ones by the libraries' rounding."""
    here = versions()
    try:
        known = [dict(entry) for entry in Manifest.read(layout.manifest).versions]
    except UNREADABLE:
        return
    if damaged and not any(here.items() <= entry.items() for entry in known):
        was, now = (", ".join(f"{k} {v}" for k, v in entry.items()) for entry in (known[0], here))
        log.warning(
            "%s was written with %s, and this machine has %s: the shards built again (%d of %d) "
            "may have other bytes, and so other checksums, than before",
            *(layout.root, was, now, damaged, shards),
        )
