"""Check one dataset: its small files against one another, then every tar in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pipeline.command import ProgressBar
from pipeline.foreign_files import read_regular
from pipeline.index import DatasetManifest
from pipeline.index.table import INDEX_BYTES
from pipeline.layout import TEMPORARY_PREFIX, DatasetLayout, shard_number
from pipeline.records import ShardFile
from pipeline.verify.damage import CheckReport, DatasetProblem, ProblemList
from pipeline.verify.evidence import DatasetEvidence, gather_evidence
from pipeline.verify.index_rows import IndexRows
from pipeline.verify.tars import JsonShape, TarState, check_tar


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedTar:
    """One tar and what it must be."""

    path: Path
    size: int
    shard: int
    extension: str
    file: ShardFile
    """By the build's records, where they are readable."""
    listed: ShardFile | None
    """By `dataset.json`, which may differ from the build's records."""

    @property
    def idx(self) -> Path:
        return self.path.with_suffix(".idx")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedTar:
    """A tar, and the problems found in it and in its .idx."""

    expected: ExpectedTar
    problems: tuple[DatasetProblem, ...]
    state: TarState | None
    """None if the tar could not be read."""


def check_dataset(root: Path, *, workers: int = 1, quiet: bool = True) -> CheckReport:
    """Compare one dataset with its manifest, index and records, byte by byte."""
    layout, name = DatasetLayout(root), root.resolve().name
    evidence = gather_evidence(layout)
    manifest = evidence.manifest
    if manifest is None:
        return CheckReport(datasets=(name,), problems=evidence.problems)
    problems = ProblemList(layout)
    problems += evidence.problems
    expected_tars = list(_expected_tars(layout, evidence))
    checked_tars: list[CheckedTar] = []
    total = sum(expected.file.samples for expected in expected_tars)
    with ProgressBar(f"verify {name}", total, quiet=quiet) as progress:
        for checked in _check_tars(layout, evidence, expected_tars, workers):
            checked_tars.append(checked)
            problems += checked.problems
            note = f"{len(problems)} problems" if problems else ""
            progress.advance(checked.expected.file.samples, note)
    _compare_shapes(checked_tars, problems)
    _list_stray_files(manifest, problems)
    states = [checked.state for checked in checked_tars if checked.state is not None]
    small_files = [layout.manifest, layout.index, *map(layout.wids, manifest.shards)]
    small_files += [expected.idx for expected in expected_tars]
    small_sizes = [path.stat().st_size for path in small_files if path.is_file()]
    return CheckReport(
        datasets=(name,),
        problems=tuple(problems),
        files=len(states) + len(small_sizes),
        bytes=sum(state.bytes for state in states) + sum(small_sizes),
        members=sum(state.members for state in states),
    )


def _expected_tars(layout: DatasetLayout, evidence: DatasetEvidence) -> Iterator[ExpectedTar]:
    manifest = evidence.manifest
    assert manifest is not None
    listed = {} if evidence.on_disk is None else evidence.on_disk.shards
    for size, encoding in zip(manifest.recipe.sizes, manifest.recipe.encodings, strict=True):
        listed_files = {file.name: file for file in listed.get(size, ())}
        for file in manifest.shards[size]:
            shard = shard_number(file.name)
            yield ExpectedTar(
                path=layout.tar(size, shard),
                size=size,
                shard=shard,
                extension=encoding.extension,
                file=file,
                listed=listed_files.get(file.name),
            )


def _check_tars(
    layout: DatasetLayout, evidence: DatasetEvidence, tars: Sequence[ExpectedTar], workers: int
) -> Iterator[CheckedTar]:
    """Check tars and yield them in their order. Threads do: hashing and reading release the GIL."""
    manifest, table = evidence.manifest, evidence.table
    rows = None if manifest is None or table is None else IndexRows(manifest, table)
    if workers <= 1:
        yield from (check_one_tar(layout, tar, rows) for tar in tars)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(lambda tar: check_one_tar(layout, tar, rows), tars)
    finally:
        pool.shutdown(cancel_futures=True)


def check_one_tar(layout: DatasetLayout, tar: ExpectedTar, rows: IndexRows | None) -> CheckedTar:
    """Check one tar and its .idx; without rows of the index, by checksums alone."""
    samples = [] if rows is None else rows.of_tar(tar.size, tar.shard)
    problems, state = ProblemList(layout, tar.shard), None
    try:
        state = check_tar(tar.path, samples, tar.extension)
        _compare_tar(tar, state, problems)
    except FileNotFoundError:
        problems.note(tar.path, "is missing", "shard")
    except OSError as error:
        problems.note(tar.path, f"cannot be read: {error.strerror}", "shard")
    if rows is not None and len(samples) != tar.file.samples:
        what = f"has {len(samples):,} rows of {tar.path.name}, the manifest {tar.file.samples:,}"
        problems.note(layout.index, what, "summary")
    _compare_idx(tar, state if samples else None, problems)
    return CheckedTar(expected=tar, problems=tuple(problems), state=state)


def _compare_tar(expected: ExpectedTar, state: TarState, problems: ProblemList) -> None:
    tar, file, listed = expected.path, expected.file, expected.listed
    for flaw in state.flaws:
        problems.note(tar, flaw.what, "shard", key=flaw.key, offset=flaw.offset)
    if (state.bytes, state.sha256) == (file.bytes, file.sha256):
        return
    if not state.flaws and listed is not None and state.sha256 == listed.sha256:
        layout = problems.layout
        what = f"has another sha256 for {tar.name} than the file and {layout.manifest.name}"
        problems.note(layout.commit(expected.shard), what, "shard")
        return
    what = (
        f"has {state.bytes:,} bytes and sha256 {state.sha256}; "
        f"the build wrote {file.bytes:,} and {file.sha256}"
    )
    problems.note(tar, what, "shard")


def _compare_idx(expected: ExpectedTar, state: TarState | None, problems: ProblemList) -> None:
    """Compare the .idx with its checksum, and with the tar where that is intact."""
    idx, recorded = expected.idx, expected.file.index_sha256
    index = state.index if state is not None and not problems else None
    try:
        data = read_regular(idx, INDEX_BYTES)
    except OSError as error:
        what = f"cannot be read: {error.strerror}"
        problems.note(idx, what, "shard" if index is None else "idx")
        return
    digest = hashlib.sha256(data).hexdigest()
    if digest != recorded and data == index:
        what = f"has another sha256 for {idx.name} than the file, which fits its tar"
        problems.note(problems.layout.commit(expected.shard), what, "shard")
    elif digest != recorded:
        what = f"has sha256 {digest}; the build wrote {recorded}"
        problems.note(idx, what, "shard" if index is None else "idx")
    elif index is not None and data != index:
        problems.note(idx, "does not describe its tar", "shard")


def _compare_shapes(tars: Sequence[CheckedTar], problems: ProblemList) -> None:
    """Compare the json members of different tars: all have the same keys and types."""
    first: JsonShape = ()
    for checked in tars:
        shape = () if checked.state is None or checked.state.flaws else checked.state.shape
        first = first or shape
        if shape and shape != first:
            different = ProblemList(problems.layout, checked.expected.shard)
            what = f"its json members hold {shape}, other tars' {first}"
            different.note(checked.expected.path, what, "shard")
            problems += different


def _list_stray_files(manifest: DatasetManifest, problems: ProblemList) -> None:
    """List files that no build wrote, or that a killed one left behind."""
    layout = problems.layout
    ours = {layout.manifest, layout.index, layout.work}
    for size, files in manifest.shards.items():
        tars = [layout.root / str(size) / file.name for file in files]
        ours |= {layout.wids(size), layout.wids(size).parent, *tars}
        ours |= {tar.with_suffix(".idx") for tar in tars}
    folders = [layout.root, *(layout.wids(size).parent for size in manifest.shards)]
    entries = chain.from_iterable(folder.iterdir() for folder in folders if folder.is_dir())
    for entry in sorted(set(entries) - ours):
        left = "was left behind by a run that was killed" if TEMPORARY_PREFIX in entry.name else ""
        problems.note(entry, left or "does not belong to the dataset", "none")
