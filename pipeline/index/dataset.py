"""A built dataset as it is opened: its manifest, and its sample index as numpy columns.

The index has one row per sample, sorted by class, so that a class is one slice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.foreign_files import UnfitFileError, read_regular
from pipeline.index.manifest import DatasetManifest
from pipeline.index.table import INDEX_BYTES, INDEX_CURE, read_index_table
from pipeline.layout import DatasetLayout


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
    def read(cls, path: Path, manifest: DatasetManifest) -> SampleIndex:
        """Read the `index.parquet` that belongs to a manifest; 1.3 million rows take a tenth of a second.

        Raises IntegrityError for another build's index, and for one that no build can have written.
        """
        try:
            data = read_regular(path, INDEX_BYTES)
        except FileNotFoundError:
            raise IntegrityError(
                f"{path} is missing; run the build command again, which only rewrites it"
            ) from None
        except UnfitFileError as error:
            raise IntegrityError(f"{path} {error.strerror}; {INDEX_CURE}") from None
        if hashlib.sha256(data).hexdigest() != manifest.index_sha256:
            raise IntegrityError(
                f"{path} is not the index that dataset.json beside it names (its sha256 differs): it is "
                f"damaged, or of another build; {INDEX_CURE}"
            )
        return cls.from_table(read_index_table(data, path, manifest), len(manifest.classes))

    @classmethod
    def from_table(cls, table: pa.Table, classes: int) -> SampleIndex:
        """The columns of a checked table."""
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
        return cls(root, manifest, SampleIndex.read(layout.index, manifest))

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


def lost_folders(root: Path) -> list[Path]:
    """The folders of tars beside the datasets of `--shards root` that have neither manifest nor records."""
    folders = [] if is_dataset(root) else [child for child in root.iterdir() if child.is_dir()]
    return [c for c in sorted(folders) if not is_dataset(c) and any(c.glob("*/shard-*.tar"))]


def is_dataset(folder: Path) -> bool:
    """Whether the folder holds a dataset of ours, built or under way."""
    layout = DatasetLayout(folder)
    return layout.manifest.exists() or layout.work.is_dir()
