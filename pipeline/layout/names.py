"""The file names of a built dataset.

<root>/dataset.json            the manifest; it appears last, so its presence means "complete"
<root>/index.parquet           one row per sample
<root>/<size>/shard-000000.tar, shard-000000.idx, wids.json
<root>/.build/                 plan and commit records, from which a build resumes and a repair starts
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class DatasetLayout:
    """The paths of one dataset."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "dataset.json"

    @property
    def index(self) -> Path:
        return self.root / "index.parquet"

    @property
    def work(self) -> Path:
        return self.root / ".build"

    @property
    def scratch(self) -> Path:
        return self.work / "scratch"

    @property
    def plan(self) -> Path:
        return self.work / "plan.parquet"

    def commit(self, shard: int) -> Path:
        return self.work / f"shard-{shard:06d}.parquet"

    def tar(self, size: int, shard: int) -> Path:
        return self.root / str(size) / f"shard-{shard:06d}.tar"

    def wids(self, size: int) -> Path:
        return self.root / str(size) / "wids.json"


def key_text(key: int) -> str:
    """The names of a sample's members, up to the dot."""
    return f"{key:09d}"


def shard_number(name: str) -> int:
    """The number of the shard whose tar has this name; -1 for any other name."""
    match = re.fullmatch(r"shard-(\d{6})\.tar", name, re.ASCII)
    return int(match[1]) if match else -1


@lru_cache
def npy_header(width: int, height: int) -> bytes:
    """The bytes that numpy writes before the pixels of an RGB image, in a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, np.empty((height, width, 3), np.uint8), allow_pickle=False)
    return buffer.getvalue()[: -height * width * 3]
