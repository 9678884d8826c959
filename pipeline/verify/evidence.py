"""Compare the small files of a dataset with one another: manifest, index, wids, build records.

`dataset.json` says what every other file must be, and holds its own checksum. Where the build's records
are still there, the manifest is also derived from them again and compared.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from pipeline.build.finalize import wids_text
from pipeline.build.jobs import read_commit
from pipeline.errors import SourceMissing
from pipeline.foreign_files import read_regular
from pipeline.index import DatasetManifest
from pipeline.index.table import INDEX_BYTES, read_index_table
from pipeline.layout import DatasetLayout
from pipeline.settings import JSON_BYTES
from pipeline.verify.damage import DatasetProblem, ProblemList
from pipeline.verify.rederive import (
    UNREADABLE,
    DerivedDataset,
    check_record_expansion,
    derive_from_records,
    recorded_plan,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetEvidence:
    """What the small files of a dataset say of it, before its tars are read."""

    problems: tuple[DatasetProblem, ...]
    on_disk: DatasetManifest | None
    """`dataset.json`; None if it is missing or unreadable."""
    derived: DerivedDataset | None
    """From the build's records; None if they are missing or damaged."""
    table: pa.Table | None
    """The index to compare the tars with."""

    @property
    def manifest(self) -> DatasetManifest | None:
        """What was built: by the records, else by `dataset.json`."""
        return self.derived.manifest if self.derived is not None else self.on_disk


def gather_evidence(layout: DatasetLayout) -> DatasetEvidence:
    """Read all files but the tars, and compare them."""
    problems = ProblemList(layout)
    on_disk: DatasetManifest | None = None
    missing = ""
    try:
        on_disk = DatasetManifest.read(layout.manifest)
    except SourceMissing as error:
        missing = str(error)
    except UNREADABLE as error:
        problems.note(layout.manifest, f"cannot be read: {error!r}", "summary")
    derived = _derive(problems)
    if missing and derived is None:
        problems.clear()
        problems.note(layout.manifest, missing, "build")
        return DatasetEvidence(problems=tuple(problems), on_disk=None, derived=None, table=None)
    if missing:
        problems.note(layout.manifest, "is missing, though all shards are there", "summary")
    elif on_disk is not None:
        _compare_manifest(on_disk, derived, problems)
    table = _check_index(on_disk, derived, problems)
    best = derived.manifest if derived is not None else on_disk
    if best is not None:
        _compare_wids(best, problems)
        if table is not None and len(table["key"].unique()) < table.num_rows:
            problems.note(layout.index, "has a key twice", "summary")
    return DatasetEvidence(problems=tuple(problems), on_disk=on_disk, derived=derived, table=table)


def _derive(problems: ProblemList) -> DerivedDataset | None:
    """Derive the dataset from its records. A folder without them is whole, only harder to mend."""
    layout = problems.layout
    if not layout.work.is_dir():
        return None
    try:
        plan = recorded_plan(layout)
    except UNREADABLE as error:
        problems.note(layout.plan, f"cannot be read: {error}", "plan")
        return None
    damaged = [problem for shard in range(plan.shards) for problem in _check_record(layout, shard)]
    problems += damaged
    if damaged:
        return None
    try:
        return derive_from_records(layout, plan)
    except UNREADABLE as error:
        problems.note(layout.plan, f"does not fit the shards' records: {error}", "plan")
        return None


def _check_record(layout: DatasetLayout, shard: int) -> ProblemList:
    problems = ProblemList(layout, shard)
    try:
        check_record_expansion(layout.commit(shard))
        read_commit(layout.commit(shard))
    except UNREADABLE as error:
        problems.note(layout.commit(shard), f"cannot be read: {error}", "shard")
    return problems


def _compare_manifest(
    on_disk: DatasetManifest, derived: DerivedDataset | None, problems: ProblemList
) -> None:
    """Compare `dataset.json` byte for byte; `_check_index` compares the checksum of the index."""
    manifest = on_disk if derived is None else derived.manifest
    path, right = problems.layout.manifest, replace(manifest, index_sha256=on_disk.index_sha256)
    actual, expected = read_regular(path, JSON_BYTES), right.text().encode()
    if actual == expected:
        return
    pairs = enumerate(zip(actual, expected, strict=False))
    offset = next((i for i, (a, b) in pairs if a != b), min(len(actual), len(expected)))
    line = slice(expected.rfind(b"\n", 0, offset) + 1, None)
    wrote, says = (text[line].split(b"\n")[0].strip() for text in (expected, actual))
    what = f"says {says.decode(errors='replace')!r}, the build wrote {wrote.decode()!r}"
    problems.note(path, what, "summary", offset=offset)


def _check_index(
    on_disk: DatasetManifest | None, derived: DerivedDataset | None, problems: ProblemList
) -> pa.Table | None:
    """Check the index; the rows to compare the tars with are the records' where there are any."""
    layout, derived_index = problems.layout, None if derived is None else derived.index
    manifest = on_disk if on_disk is not None or derived is None else derived.manifest
    try:
        data = read_regular(layout.index, INDEX_BYTES)
        digest = hashlib.sha256(data).hexdigest()
        if on_disk is not None and digest != on_disk.index_sha256:
            what = f"has sha256 {digest}, {layout.manifest.name} says {on_disk.index_sha256}"
            problems.note(layout.index, what, "summary")
        elif manifest is not None:
            table = read_index_table(data, layout.index, manifest)
            if derived_index is None:
                return table
            if not table.equals(derived_index):
                problems.note(layout.index, "does not agree with the build's records", "summary")
    except FileNotFoundError:
        problems.note(layout.index, "is missing", "summary")
    except UNREADABLE as error:
        problems.note(layout.index, f"cannot be read: {error}", "summary")
    return derived_index


def read_index(path: Path, manifest: DatasetManifest) -> pa.Table:
    """Read an index into memory. Raises one of UNREADABLE."""
    return read_index_table(read_regular(path, INDEX_BYTES), path, manifest)


def _compare_wids(manifest: DatasetManifest, problems: ProblemList) -> None:
    layout = problems.layout
    for size, files in manifest.shards.items():
        path = layout.wids(size)
        try:
            actual = read_regular(path, JSON_BYTES)
        except OSError as error:
            problems.note(path, f"cannot be read: {error.strerror}", "wids")
            continue
        if actual != wids_text(f"{manifest.name}-{size}", files):
            problems.note(path, f"does not list what {layout.manifest.name} lists", "wids")
