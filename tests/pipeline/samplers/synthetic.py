"""Synthetic datasets for samplers: an index and a manifest made from class counts alone, with no image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipeline.index import Dataset, DatasetManifest, SampleIndex
from pipeline.records import ClassRecord, Recipe, Split
from pipeline.shardset import ShardSet
from pipeline.sources.meta_dataset.classes import official_classes
from pipeline.sources.wordnet import split_graphs

WordColumns = Mapping[str, Sequence[str]]


def fake_dataset(
    name: str,
    counts: Sequence[int],
    classes: Sequence[ClassRecord] | None = None,
    words: WordColumns | None = None,
    hierarchy: Mapping[str, Mapping[str, tuple[str, ...]]] | None = None,
) -> Dataset:
    """A dataset with so many images of each class; `words` are columns that differ by sample."""
    records = classes or [ClassRecord(name=f"class {i}") for i in range(len(counts))]
    class_id = np.arange(len(counts), dtype=np.int32).repeat(counts)
    columns: dict[str, NDArray[np.generic]] = {"key": np.arange(len(class_id)), "class_id": class_id}
    vocabulary: dict[str, tuple[str, ...]] = {}
    by_class: WordColumns = {"split": [r.split for r in records], "user": [""] * len(records)}
    for column, texts in by_class.items():
        vocabulary[column], codes = encode_words(texts)
        columns[column] = codes[class_id]
    for column, texts in (words or {}).items():
        vocabulary[column], columns[column] = encode_words(texts)
    splits = [vocabulary["split"][code] for code in np.unique(columns["split"])]
    manifest = DatasetManifest(
        name=name,
        plan_hash=f"plan of {name}",
        recipe=Recipe(sizes=(84,)),
        classes=tuple(records),
        hierarchy=hierarchy or {},
        samples=len(class_id),
        splits={s: int((columns["split"] == vocabulary["split"].index(s)).sum()) for s in splits},
        shards={},
        sources=(),
        quarantined=(),
        versions=(),
        index_sha256="",
    )
    starts = np.searchsorted(class_id, np.arange(len(counts) + 1))
    return Dataset(Path(name), manifest, SampleIndex(columns, vocabulary, starts))


def encode_words(texts: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """A vocabulary and the texts as codes into it."""
    words = tuple(dict.fromkeys(texts))
    places = {word: place for place, word in enumerate(words)}
    return words, np.array([places[text] for text in texts], np.int32)


def split_classes(splits: Sequence[str], superclasses: Sequence[str] = ()) -> list[ClassRecord]:
    """A class for each split named."""
    above = superclasses or [""] * len(splits)
    return [
        ClassRecord(name=f"class {i}", split=cast("Split", split), superclass=superclass)
        for i, (split, superclass) in enumerate(zip(splits, above, strict=True))
    ]


def official_dataset(name: str, cap: int | None = None) -> Dataset:
    """A dataset of Meta-Dataset with its published classes and counts; at most `cap` images each."""
    classes = official_classes(name)
    counts = [entry.images if cap is None else min(cap, entry.images) for entry in classes]
    records = [entry.record for entry in classes]
    graphs = split_graphs(all_train=name.endswith("_v2")) if name.startswith("ilsvrc") else {}
    return fake_dataset(name, counts, records, hierarchy=graphs)


def shard_set(*datasets: Dataset) -> ShardSet:
    """An opened set of these."""
    return ShardSet("made", {d.manifest.name: d for d in sorted(datasets, key=lambda d: d.root)})
