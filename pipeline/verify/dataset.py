"""One dataset against everything known about it: its small files, then every tar in one pass."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from pipeline.command import Progress
from pipeline.index import Manifest
from pipeline.layout import TEMPORARY, Layout
from pipeline.records import ShardFile
from pipeline.verify.damage import Findings, Problem, Report
from pipeline.verify.evidence import Evidence, gather
from pipeline.verify.rows import Rows
from pipeline.verify.tars import TarState, check_tar

SHARD_NAME: Final = re.compile(r"shard-(\d{6})\.tar")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One tar and what it must be."""

    size: int
    shard: int
    extension: str
    file: ShardFile
    listed: ShardFile | None
    """What `dataset.json` says of it, which may be something else than the build's records say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a tar and its .idx came to."""

    target: Target
    problems: tuple[Problem, ...]
    state: TarState | None
    """None if the tar could not be read."""


def check_dataset(root: Path, *, workers: int = 1, quiet: bool = True) -> Report:
    """Compare one dataset with its manifest, index and records, byte by byte."""
    layout, name = Layout(root), root.resolve().name
    evidence = gather(layout)
    manifest = evidence.manifest
    if manifest is None:
        return Report(datasets=(name,), problems=evidence.problems)
    findings = Findings(root)
    findings += evidence.problems
    targets = list(_targets(layout, evidence, findings))
    outcomes: list[Outcome] = []
    total = sum(target.file.samples for target in targets)
    with Progress(f"verify {name}", total, quiet=quiet) as progress:
        for outcome in _outcomes(layout, evidence, targets, workers):
            outcomes.append(outcome)
            findings += outcome.problems
            note = f"{len(findings)} problems" if findings else ""
            progress.advance(outcome.target.file.samples, note)
    _compare_shapes(layout, outcomes, findings)
    _name_strangers(layout, manifest, findings)
    states = [outcome.state for outcome in outcomes if outcome.state is not None]
    small = [layout.manifest, layout.index, *map(layout.wids, manifest.shards)]
    small += [layout.tar(target.size, target.shard).with_suffix(".idx") for target in targets]
    there = [path.stat().st_size for path in small if path.is_file()]
    return Report(
        datasets=(name,),
        problems=tuple(findings),
        files=len(states) + len(there),
        bytes=sum(state.bytes for state in states) + sum(there),
        members=sum(state.members for state in states),
    )


def _targets(layout: Layout, evidence: Evidence, findings: Findings) -> Iterator[Target]:
    manifest = evidence.manifest
    assert manifest is not None
    listed = {} if evidence.found is None else evidence.found.shards
    for size, encoding in zip(manifest.recipe.sizes, manifest.recipe.encodings, strict=True):
        by_name = {file.name: file for file in listed.get(size, ())}
        for file in manifest.shards.get(size, ()):
            match = SHARD_NAME.fullmatch(file.name)
            if match is None:
                findings.note(layout.manifest, f"names a shard {file.name!r}", "summary")
                continue
            yield Target(
                size=size,
                shard=int(match[1]),
                extension=encoding.extension,
                file=file,
                listed=by_name.get(file.name),
            )


def _outcomes(
    layout: Layout, evidence: Evidence, targets: Sequence[Target], workers: int
) -> Iterator[Outcome]:
    """In the order of `targets`. Threads are enough: hashing and reading let go of Python's lock."""
    manifest, table = evidence.manifest, evidence.table
    rows = None if manifest is None or table is None else Rows(manifest, table)
    if workers <= 1:
        yield from (check_target(layout, target, rows) for target in targets)
        return
    pool = ThreadPoolExecutor(workers)
    try:
        yield from pool.map(lambda target: check_target(layout, target, rows), targets)
    finally:
        pool.shutdown(cancel_futures=True)


def check_target(layout: Layout, target: Target, rows: Rows | None) -> Outcome:
    """One tar and its .idx. Without rows, by their checksums alone."""
    tar = layout.tar(target.size, target.shard)
    expected = [] if rows is None else rows.of(target.size, target.shard)
    findings, state = Findings(layout.root, target.shard), None
    try:
        state = check_tar(tar, expected, target.extension)
        _judge_tar(layout, target, state, findings)
    except FileNotFoundError:
        findings.note(tar, "is missing", "shard")
    except OSError as error:
        findings.note(tar, f"cannot be read: {error.strerror}", "shard")
    if rows is not None and len(expected) != target.file.samples:
        what = f"has {len(expected):,} rows of {tar.name}, the manifest {target.file.samples:,}"
        findings.note(layout.index, what, "summary")
    _judge_idx(layout, target, state if expected else None, findings)
    return Outcome(target=target, problems=tuple(findings), state=state)


def _judge_tar(layout: Layout, target: Target, state: TarState, findings: Findings) -> None:
    tar, file, listed = layout.tar(target.size, target.shard), target.file, target.listed
    for flaw in state.flaws:
        findings.note(tar, flaw.what, "shard", key=flaw.key, offset=flaw.offset)
    if (state.bytes, state.sha256) == (file.bytes, file.sha256):
        return
    if not state.flaws and listed is not None and state.sha256 == listed.sha256:
        what = f"has another sha256 for {tar.name} than the file and {layout.manifest.name}"
        findings.note(layout.commit(target.shard), what, "shard")
        return
    what = (
        f"has {state.bytes:,} bytes and sha256 {state.sha256}; "
        f"the build wrote {file.bytes:,} and {file.sha256}"
    )
    findings.note(tar, what, "shard")


def _judge_idx(layout: Layout, target: Target, state: TarState | None, findings: Findings) -> None:
    """The checksum, and that it is the index of this tar."""
    idx = layout.tar(target.size, target.shard).with_suffix(".idx")
    sound = state is not None and not findings
    try:
        data = idx.read_bytes()
    except OSError as error:
        findings.note(idx, f"cannot be read: {error.strerror}", "idx" if sound else "shard")
        return
    digest, file = hashlib.sha256(data).hexdigest(), target.file
    if sound and state is not None and digest != file.index_sha256 and data == state.index:
        what = f"has another sha256 for {idx.name} than the file, which fits its tar"
        findings.note(layout.commit(target.shard), what, "shard")
    elif digest != file.index_sha256:
        what = f"has sha256 {digest}; the build wrote {file.index_sha256}"
        findings.note(idx, what, "idx" if sound else "shard")
    elif sound and state is not None and data != state.index:
        findings.note(idx, "does not describe its tar", "shard")


def _compare_shapes(layout: Layout, outcomes: Sequence[Outcome], findings: Findings) -> None:
    """The json members have the same keys and types in all tars, as in each."""
    first: tuple[tuple[str, str], ...] = ()
    for outcome in outcomes:
        shape = () if outcome.state is None or outcome.state.flaws else outcome.state.shape
        first = first or shape
        if shape and shape != first:
            odd = Findings(layout.root, outcome.target.shard)
            tar = layout.tar(outcome.target.size, outcome.target.shard)
            odd.note(tar, f"its json members hold {shape}, other tars' {first}", "shard")
            findings += odd


def _name_strangers(layout: Layout, manifest: Manifest, findings: Findings) -> None:
    """Files that no build wrote, or that a killed one left behind."""
    ours = {layout.manifest, layout.index, layout.work}
    for size, files in manifest.shards.items():
        tars = [layout.root / str(size) / file.name for file in files]
        ours |= {layout.wids(size), layout.wids(size).parent, *tars}
        ours |= {tar.with_suffix(".idx") for tar in tars}
    folders = [layout.root, *(layout.wids(size).parent for size in manifest.shards)]
    entries = chain.from_iterable(folder.iterdir() for folder in folders if folder.is_dir())
    for entry in sorted(set(entries) - ours):
        left = "was left behind by a run that was killed" if TEMPORARY in entry.name else ""
        findings.note(entry, left or "does not belong to the dataset", "none")
