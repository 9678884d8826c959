"""The manifest and the sample index of a built dataset: written, read and checked.

`dataset.json` is for people and for checks, `index.parquet` for samplers: one row per sample, sorted
by class, so that a class is one slice. Only complete datasets have a manifest, so only they open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.constants import SHARD_FORMAT
from pipeline.errors import IntegrityError, SourceMissing
from pipeline.layout import DatasetLayout
from pipeline.records import ClassRecord, Recipe, Rejected, ShardFile, SourceFile
from pipeline.settings import read_json, typed

TEXT_COLUMNS: Final = ("split", "group", "user", "kind", "split_lite")
"""Columns of text, which are stored as codes into a vocabulary."""


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
    versions: tuple[Mapping[str, str], ...]
    """The libraries that decoded and encoded; several entries if machines differed."""
    index_sha256: str

    @property
    def bytes(self) -> int:
        return sum(file.bytes for files in self.shards.values() for file in files)

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
        if values.pop("sha256", "") != _checksum(values):
            raise IntegrityError(
                f"{path} is damaged (its own sha256 does not match); run the build again after deleting "
                "it, or pipeline.verify --repair"
            )
        return _manifest_from(values, str(path))


def _checksum(values: Mapping[str, object]) -> str:
    """The sha256 of the manifest's other values, whatever the spacing of the file."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _missing(path: Path) -> str:
    if DatasetLayout(path.parent).work.is_dir():
        return (
            f"{path.parent} is a build that has not finished; run the same pipeline.build command "
            "again, it goes on where it stopped"
        )
    return f"{path.parent} is not a shard set: it has no {path.name}; build one with pipeline.build"


def _manifest_values(manifest: DatasetManifest) -> dict[str, object]:
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
        "versions": [dict(entry) for entry in manifest.versions],
        "index_sha256": manifest.index_sha256,
    }


def _filled(record: ClassRecord | ShardFile | SourceFile) -> dict[str, object]:
    """A record's fields without empty texts."""
    values = ((name, getattr(record, name)) for name in record.__dataclass_fields__)
    return {name: value for name, value in values if value != ""}


def _manifest_from(values: dict[str, Any], where: str) -> DatasetManifest:
    """The inverse of `_manifest_values`. Raises IntegrityError that names a wrong field."""
    left_out = typed(values.get("quarantined"), tuple[_RejectedEntry, ...], f"{where}, quarantined")
    fields = {
        "plan_hash": typed(values.get("plan"), str, f"{where}, plan"),
        "recipe": Recipe.from_described(values.get("recipe"), f"{where}, recipe"),
        "quarantined": [Rejected(entry["name"], entry["reason"]) for entry in left_out],
    }
    values = {name: value for name, value in values.items() if name not in ("format", "plan")}
    return typed({**values, **fields}, DatasetManifest, where)


class _RejectedEntry(TypedDict):
    """A `Rejected` as `dataset.json` holds it: with names, for people."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """The rows of `index.parquet` as numpy columns; texts as codes into a short vocabulary."""

    columns: Mapping[str, NDArray[Any]]
    words: Mapping[str, tuple[str, ...]]
    class_starts: NDArray[np.int64]
    """The rows of class c are class_starts[c] up to class_starts[c + 1]."""

    def __len__(self) -> int:
        return len(self.columns["key"])

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def rows_of(self, class_id: int) -> slice:
        """The rows of one class."""
        return slice(int(self.class_starts[class_id]), int(self.class_starts[class_id + 1]))

    def is_word(self, name: str, word: str) -> NDArray[np.bool_]:
        """A mask of the rows that have this text in this column."""
        vocabulary = self.words[name]
        code = vocabulary.index(word) if word in vocabulary else -1
        return np.asarray(self.columns[name] == code)

    def text(self, name: str, row: int) -> str:
        """The text of one row in this column."""
        return self.words[name][int(self.columns[name][row])]

    @classmethod
    def read(cls, path: Path, classes: int) -> SampleIndex:
        """Read `index.parquet`; 1.3 million rows take well under a second."""
        try:
            table = pq.read_table(path, read_dictionary=list(TEXT_COLUMNS), page_checksum_verification=True)
        except FileNotFoundError:
            raise IntegrityError(
                f"{path} is missing; run the build command again, which only rewrites it"
            ) from None
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(f"{path} is damaged ({error}); pipeline.verify --repair mends it") from error
        columns, words = {}, {}
        for name in table.column_names:
            column = table[name].combine_chunks()
            if isinstance(column, pa.DictionaryArray):
                words[name] = tuple(column.dictionary.to_pylist())
                column = column.indices
            if isinstance(column, pa.FixedSizeListArray):
                columns[name] = column.flatten().to_numpy().reshape(len(column), -1)
            else:
                columns[name] = column.to_numpy()
        starts = np.searchsorted(columns["class_id"], np.arange(classes + 1))
        return cls(columns, words, starts)


@dataclass(frozen=True, slots=True)
class Dataset:
    """One built dataset."""

    root: Path
    manifest: DatasetManifest
    index: SampleIndex

    @classmethod
    def open(cls, path: str | Path) -> Dataset:
        """Open a complete dataset. Raises SourceMissing or IntegrityError."""
        root = Path(path)
        layout = DatasetLayout(root)
        manifest = DatasetManifest.read(layout.manifest)
        index = SampleIndex.read(layout.index, len(manifest.classes))
        if len(index) != manifest.samples:
            raise IntegrityError(
                f"{layout.index} has {len(index):,} rows and {layout.manifest.name} says "
                f"{manifest.samples:,}; pipeline.verify --repair mends it"
            )
        return cls(root, manifest, index)

    @property
    def class_limit(self) -> int | None:
        """The build's limit per class; None if no class has so many images that it can have left one out."""
        limit = self.manifest.recipe.limit_per_class
        largest = int(np.diff(self.index.class_starts).max(initial=0))
        reached = limit is not None and largest + len(self.manifest.quarantined) >= limit
        return limit if reached else None

    def tar(self, size: int, shard: int) -> Path:
        """The path of one tar."""
        return DatasetLayout(self.root).tar(size, shard)


def dataset_folders(root: Path) -> list[Path]:
    """The folders of the datasets that `--shards root` names. Raises SourceMissing if there is none."""
    if not root.is_dir():
        raise SourceMissing(f"{root} is not there; build a shard set with python -m pipeline.build")
    if is_dataset(root):
        return [root]
    folders = sorted(child for child in root.iterdir() if child.is_dir() and is_dataset(child))
    if not folders:
        raise SourceMissing(
            f"{root} is neither a dataset (dataset.json) nor a folder of datasets; it holds "
            f"{sum(1 for _ in root.iterdir())} entries; build one with python -m pipeline.build"
        )
    return folders


def is_dataset(folder: Path) -> bool:
    """Whether the folder holds a dataset of ours, built or under way."""
    layout = DatasetLayout(folder)
    return layout.manifest.exists() or layout.work.is_dir()
