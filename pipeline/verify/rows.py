"""The index cut by shards: what each tar must hold, sample by sample."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.constants import QUALITY
from pipeline.index import Manifest
from pipeline.verify.tars import Row

FACTS: Final = ("class_id", "split", "group", "user", "kind", "frame", *QUALITY)
"""Columns of the index that the json members repeat."""
PLACES: Final = ("offset", "length", "crc32")


class Rows:
    """Serves the rows of one tar at a time; safe to share between threads."""

    def __init__(self, manifest: Manifest, table: pa.Table) -> None:
        self._names = [record.name for record in manifest.classes]
        shards = table["shard"].to_numpy()
        order = np.lexsort((table["key"].to_numpy(), shards))
        self._table, self._shards = table.take(pa.array(order)), shards[order]

    def of(self, size: int, shard: int) -> list[Row]:
        """The rows of one tar, in the order of its samples."""
        first, last = np.searchsorted(self._shards, [shard, shard + 1])
        part = self._table.slice(first, last - first)
        sources = {name: name for name in FACTS if name in part.column_names}
        if f"box_{size}" in part.column_names:
            sources["box"] = f"box_{size}"
        facts: dict[str, list[Any]] = {k: part[name].to_pylist() for k, name in sources.items()}
        facts["class_name"] = [self._name(class_id) for class_id in facts["class_id"]]
        abouts = [dict(zip(facts, row, strict=True)) for row in zip(*facts.values(), strict=True)]
        names = ("key", *(f"{place}_{size}" for place in PLACES))
        places = (part[name].to_pylist() for name in names)
        return [Row(*place) for place in zip(*places, abouts, strict=True)]

    def _name(self, class_id: int) -> str:
        return self._names[class_id] if 0 <= class_id < len(self._names) else ""
