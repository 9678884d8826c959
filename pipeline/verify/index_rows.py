"""The rows of the index by tar: what each tar must hold, sample by sample."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa

from pipeline.constants import QUALITY_ISSUES
from pipeline.index import DatasetManifest
from pipeline.verify.tars import ExpectedSample

REPEATED_COLUMNS: Final = ("class_id", "split", "group", "user", "kind", "frame", *QUALITY_ISSUES)
"""Columns of the index that the json members repeat."""
PLACE_COLUMNS: Final = ("offset", "length", "crc32")


class IndexRows:
    """The rows of the index, looked up by tar; safe to share between threads."""

    def __init__(self, manifest: DatasetManifest, table: pa.Table) -> None:
        self._names = [record.name for record in manifest.classes]
        shards = table["shard"].to_numpy()
        order = np.lexsort((table["key"].to_numpy(), shards))
        self._table, self._shards = table.take(pa.array(order)), shards[order]

    def of_tar(self, size: int, shard: int) -> list[ExpectedSample]:
        """The rows of one tar, in the order of its samples."""
        first, last = np.searchsorted(self._shards, [shard, shard + 1])
        rows = self._table.slice(first, last - first)
        sources = {name: name for name in REPEATED_COLUMNS if name in rows.column_names}
        if f"box_{size}" in rows.column_names:
            sources["box"] = f"box_{size}"
        columns: dict[str, list[Any]] = {k: rows[name].to_pylist() for k, name in sources.items()}
        columns["class_name"] = [self._class_name(class_id) for class_id in columns["class_id"]]
        metadata = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        names = ("key", *(f"{name}_{size}" for name in PLACE_COLUMNS))
        places = (rows[name].to_pylist() for name in names)
        return [ExpectedSample(*sample) for sample in zip(*places, metadata, strict=True)]

    def _class_name(self, class_id: int) -> str:
        return self._names[class_id] if 0 <= class_id < len(self._names) else ""
