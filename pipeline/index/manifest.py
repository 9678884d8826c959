"""The manifest of a built dataset, `dataset.json`: for people and for checks.

Only complete datasets have one, so only they open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypedDict

from pipeline.constants import SHARD_FORMAT
from pipeline.errors import IntegrityError
from pipeline.layout import DatasetLayout, shard_number
from pipeline.records import SPLITS, ClassRecord, Recipe, Rejected, ShardFile, SourceFile
from pipeline.settings import read_json, typed

MOST_BYTES: Final = 2**60  # or samples in one file, an exabyte: sums of such numbers stay exact


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetManifest:
    """The contents of `dataset.json`: what was built, from what and how."""

    name: str
    plan_hash: str
    recipe: Recipe
    classes: tuple[ClassRecord, ...]
    hierarchy: Mapping[str, Mapping[str, tuple[str, ...]]]
    samples: int
    splits: Mapping[str, int]
    """Samples in each split."""
    shards: Mapping[int, tuple[ShardFile, ...]]
    """The tars of each size."""
    sources: tuple[SourceFile, ...]
    quarantined: tuple[Rejected, ...]
    """Images of the source that are in no shard, and why."""
    versions: tuple[Mapping[str, str], ...]
    """The libraries that decoded and encoded; several entries if machines differed."""
    index_sha256: str
    damaged: tuple[Rejected, ...] = ()
    """Images in the shards whose files are damaged: decoded with gaps, as the papers' code did."""

    @property
    def bytes(self) -> int:
        return sum(file.bytes for files in self.shards.values() for file in files)

    def tar_bytes(self, size: int) -> dict[int, int]:
        """The bytes of each shard's tar of one size."""
        return {shard_number(file.name): file.bytes for file in self.shards[size]}

    def text(self) -> str:
        """The text of the file; the same manifest gives the same text."""
        values = _manifest_values(self)
        values["sha256"] = _checksum(values)
        return json.dumps(values, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> DatasetManifest:
        """Read `dataset.json`. Raises SourceMissing, or IntegrityError that names a wrong field."""
        cure = "delete it and run the build again, which only rewrites it"
        values = typed(read_json(path, _missing(path), cure), dict[str, Any], str(path))
        if values.get("format") != SHARD_FORMAT:
            raise IntegrityError(
                f"{path} has format {values.get('format')!r} and this version reads {SHARD_FORMAT}; "
                "build the dataset again or use the version that wrote it"
            )
        if not _holds_own_checksum(values):
            raise IntegrityError(
                f"{path} is damaged (its own sha256 does not match); run the build again after deleting "
                "it, or pipeline.verify --repair"
            )
        manifest = _manifest_from(values, str(path))
        manifest.check(str(path))
        return manifest

    def check(self, where: str) -> None:
        """Raise IntegrityError for a manifest that contradicts itself, as no build writes one."""
        for problem in _contradictions(self):
            raise IntegrityError(f"{where} {problem}; build the dataset again")


def _contradictions(manifest: DatasetManifest) -> Iterator[str]:
    """What cannot be so, whatever the shards hold: the readers of a manifest rely on it."""
    sizes, counts = manifest.recipe.sizes, manifest.splits.values()
    if manifest.samples < 1:
        yield f"says {manifest.samples:,} samples"
    if set(manifest.shards) != set(sizes):
        yield f"lists shards of {sorted(manifest.shards)} pixels and was built at {sorted(sizes)}"
    for size, files in manifest.shards.items():
        yield from (f"{problem} of {size} pixels" for problem in _list_problems(files, manifest.samples))
    if foreign := manifest.splits.keys() - set(SPLITS):
        yield f"has splits {sorted(foreign)}, which are none"
    if min(counts, default=0) < 0 or sum(counts) != manifest.samples:
        yield f"says {manifest.samples:,} samples, and its splits have {dict(manifest.splits)}"


def _list_problems(files: Sequence[ShardFile], samples: int) -> Iterator[str]:
    """Why these cannot be the tars of one size."""
    numbers = [shard_number(file.name) for file in files]
    if -1 in numbers or len(set(numbers)) < len(numbers):
        yield "lists other names than shard-NNNNNN.tar, each once, for its shards"
    if any(not (0 < file.samples < MOST_BYTES and 0 < file.bytes < MOST_BYTES) for file in files):
        yield "lists impossible numbers of samples or bytes for its shards"
    if (listed := sum(file.samples for file in files)) != samples:
        yield f"says {samples:,} samples and lists {listed:,} in its shards"


def _holds_own_checksum(values: dict[str, Any]) -> bool:
    """Take the checksum out of the values; whether it is theirs. Text that no file can hold has none."""
    try:
        return bool(values.pop("sha256", "") == _checksum(values))
    except UnicodeEncodeError:
        return False


def _checksum(values: Mapping[str, object]) -> str:
    """The sha256 of the manifest's other values, whatever the spacing of the file."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _missing(path: Path) -> str:
    if DatasetLayout(path.parent).work.is_dir():
        return (
            f"{path.parent} is a build that has not finished; run the same pipeline.build command "
            "again, it goes on where it stopped"
        )
    return f"{path.parent} is not a shard set: it has no {path.name}; build one with pipeline.build"


def _manifest_values(manifest: DatasetManifest) -> dict[str, object]:
    damaged = [entry._asdict() for entry in manifest.damaged]
    return {
        "format": SHARD_FORMAT,
        "name": manifest.name,
        "plan": manifest.plan_hash,
        "recipe": manifest.recipe.described(),
        "samples": manifest.samples,
        "splits": dict(manifest.splits),
        "classes": [_filled(record) for record in manifest.classes],
        "hierarchy": {split: dict(graph) for split, graph in manifest.hierarchy.items()},
        "shards": {str(s): [_filled(file) for file in files] for s, files in manifest.shards.items()},
        "sources": [_filled(file) for file in manifest.sources],
        "quarantined": [entry._asdict() for entry in manifest.quarantined],
        **({"damaged": damaged} if damaged else {}),
        "versions": [dict(entry) for entry in manifest.versions],
        "index_sha256": manifest.index_sha256,
    }


def _filled(record: ClassRecord | ShardFile | SourceFile) -> dict[str, object]:
    """A record's fields without texts that are empty by default."""
    values = ((field, getattr(record, field.name)) for field in fields(record))
    return {field.name: value for field, value in values if value != "" or field.default != ""}


def _manifest_from(values: dict[str, Any], where: str) -> DatasetManifest:
    """The inverse of `_manifest_values`. Raises IntegrityError that names a wrong field."""
    fields = {
        "plan_hash": typed(values.get("plan"), str, f"{where}, plan"),
        "recipe": Recipe.from_described(values.get("recipe"), f"{where}, recipe"),
        "quarantined": _rejected_from(values.get("quarantined"), f"{where}, quarantined"),
        "damaged": _rejected_from(values.get("damaged", []), f"{where}, damaged"),
    }
    values = {name: value for name, value in values.items() if name not in ("format", "plan")}
    return typed({**values, **fields}, DatasetManifest, where)


def _rejected_from(values: object, where: str) -> list[Rejected]:
    entries = typed(values, tuple[_RejectedEntry, ...], where)
    return [Rejected(entry["name"], entry["reason"]) for entry in entries]


class _RejectedEntry(TypedDict):
    """A `Rejected` as `dataset.json` holds it: with names, for people."""

    name: str
    reason: str
