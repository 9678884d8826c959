"""The small files of a dataset, held against one another: manifest, index, wids, build records.

`dataset.json` says what every other file must be, and its own checksum. Where the build's records are
still there, the manifest is also derived again from them and compared.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.build.finalize import wids_text
from pipeline.build.jobs import read_commit
from pipeline.build.plan import read_plan_header
from pipeline.errors import SourceMissing
from pipeline.index import Manifest
from pipeline.layout import Layout
from pipeline.verify.damage import Findings, Problem
from pipeline.verify.rederive import UNREADABLE, Derived, read_index, rederive


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known of a dataset before its tars are read."""

    problems: tuple[Problem, ...]
    found: Manifest | None
    """`dataset.json` as it is; None if it is missing or unreadable."""
    derived: Derived | None
    """What the records lead to; None if they are missing or damaged."""
    table: pa.Table | None
    """The index to hold the tars against."""

    @property
    def manifest(self) -> Manifest | None:
        """The best account of what was built."""
        return self.derived.manifest if self.derived is not None else self.found


def gather(layout: Layout) -> Evidence:
    """Read and compare all but the tars."""
    findings = Findings(layout.root)
    found: Manifest | None = None
    missing = ""
    try:
        found = Manifest.read(layout.manifest)
    except SourceMissing as error:
        missing = str(error)
    except UNREADABLE as error:
        findings.note(layout.manifest, f"cannot be read: {error!r}", "summary")
    derived = _derived(layout, findings)
    if missing and derived is None:
        findings.clear()
        findings.note(layout.manifest, missing, "build")
        return Evidence(problems=tuple(findings), found=None, derived=None, table=None)
    if missing:
        findings.note(layout.manifest, "is missing, though all shards are there", "summary")
    elif found is not None:
        _compare_manifest(layout, found, derived, findings)
    table = _index(layout, found, derived, findings)
    best = derived.manifest if derived is not None else found
    if best is not None:
        _compare_wids(layout, best, findings)
        for what in _miscounts(best, table) if table is not None else ():
            findings.note(layout.index, what, "summary")
    return Evidence(problems=tuple(findings), found=found, derived=derived, table=table)


def _derived(layout: Layout, findings: Findings) -> Derived | None:
    """What the records lead to. A folder without records is whole, only harder to mend."""
    if not layout.work.is_dir():
        return None
    try:
        shards = int(read_plan_header(layout.plan)["shards"])
    except UNREADABLE as error:
        findings.note(layout.plan, f"cannot be read: {error}", "plan")
        return None
    damaged = [problem for shard in range(shards) for problem in _bad_record(layout, shard)]
    findings += damaged
    if damaged:
        return None
    try:
        return rederive(layout)
    except UNREADABLE as error:
        findings.note(layout.plan, f"does not fit the shards' records: {error}", "plan")
        return None


def _bad_record(layout: Layout, shard: int) -> Findings:
    findings = Findings(layout.root, shard)
    try:
        read_commit(layout.commit(shard))
    except UNREADABLE as error:
        findings.note(layout.commit(shard), f"cannot be read: {error}", "shard")
    return findings


def _compare_manifest(
    layout: Layout, found: Manifest, derived: Derived | None, findings: Findings
) -> None:
    """Byte for byte, except for the checksum of the index, which `_index` looks at."""
    right = found
    if derived is not None:
        right = replace(derived.manifest, index_sha256=found.index_sha256)
    actual, expected = layout.manifest.read_bytes(), right.text().encode()
    if actual == expected:
        return
    pairs = enumerate(zip(actual, expected, strict=False))
    offset = next((i for i, (a, b) in pairs if a != b), min(len(actual), len(expected)))
    line = slice(expected.rfind(b"\n", 0, offset) + 1, None)
    wrote, says = (text[line].split(b"\n")[0].strip() for text in (expected, actual))
    what = f"says {says.decode(errors='replace')!r}, the build wrote {wrote.decode()!r}"
    findings.note(layout.manifest, what, "summary", offset=offset)


def _index(
    layout: Layout, found: Manifest | None, derived: Derived | None, findings: Findings
) -> pa.Table | None:
    """The rows to hold the tars against, from the records if they are there."""
    known = None if derived is None else derived.index
    try:
        digest = hashlib.sha256(layout.index.read_bytes()).hexdigest()
        if found is not None and digest != found.index_sha256:
            what = f"has sha256 {digest}, {layout.manifest.name} says {found.index_sha256}"
            findings.note(layout.index, what, "summary")
            return known
        table = read_index(layout.index)
    except FileNotFoundError:
        findings.note(layout.index, "is missing", "summary")
        return known
    except UNREADABLE as error:
        findings.note(layout.index, f"cannot be read: {error}", "summary")
        return known
    if known is not None and not table.equals(known):
        findings.note(layout.index, "does not agree with the build's records", "summary")
    return table if known is None else known


def _compare_wids(layout: Layout, manifest: Manifest, findings: Findings) -> None:
    for size, files in manifest.shards.items():
        path = layout.wids(size)
        try:
            actual = path.read_bytes()
        except OSError as error:
            findings.note(path, f"cannot be read: {error.strerror}", "wids")
            continue
        if actual != wids_text(f"{manifest.name}-{size}", files):
            findings.note(path, f"does not list what {layout.manifest.name} lists", "wids")


def _miscounts(manifest: Manifest, table: pa.Table) -> Iterator[str]:
    """Where the index and the manifest count differently."""
    if table.num_rows != manifest.samples:
        yield f"has {table.num_rows:,} rows, the manifest says {manifest.samples:,} samples"
    splits = Counter(
        {entry["values"]: entry["counts"] for entry in pc.value_counts(table["split"]).to_pylist()}
    )
    if splits != Counter(manifest.splits):
        yield f"has splits {dict(splits)}, the manifest says {dict(manifest.splits)}"
    ids = table["class_id"].to_numpy()
    if len(ids) and (ids.min() < 0 or ids.max() >= len(manifest.classes)):
        yield f"has class ids {ids.min()} to {ids.max()} for {len(manifest.classes)} classes"
    if np.any(np.diff(ids) < 0):
        yield "is not sorted by class"
    if len(np.unique(table["key"].to_numpy())) < table.num_rows:
        yield "has a key twice"
    for size, files in manifest.shards.items():
        listed = sum(file.samples for file in files)
        if listed != manifest.samples:
            yield f"belongs to {manifest.samples:,} samples, the {size} px tars have {listed:,}"
