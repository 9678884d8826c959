"""Datasets on disk become items. Each module reads one real format; this door finds the right one.

`SOURCES` and `FAMILIES` are what `--dataset` takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from pipeline.errors import UsageError
from pipeline.sources.base import Source
from pipeline.sources.demo import DemoSource
from pipeline.sources.folder import FolderSource


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """What some sources can be asked for beyond their location."""

    name: str = ""
    """Another name for the dataset."""
    split_by: str = ""
    """folder: `folder`, or a file of lines "name split"."""
    protocol: Literal["both", "vtab", "lite"] = "both"
    """vtab: whose support and query sets to build."""
    frame_step: int = 1
    """orbit: every how many frames one is kept."""
    max_frames: int | None = None
    """orbit: at most this many frames of a video."""


Maker = Callable[[Path, SourceOptions], Source]

OWN: Final[Mapping[str, Maker]] = {
    "demo": lambda _root, options: DemoSource(name=options.name or "demo"),
    "folder": lambda root, options: FolderSource(
        root=root, name=options.name or "folder", split_by=options.split_by
    ),
}
NAMES: Final = tuple(OWN)
FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {}


def open_source(dataset: str, root: Path, options: SourceOptions | None = None) -> Source:
    """The source that `--dataset` names, at `root`."""
    if dataset not in OWN:
        raise UsageError(f"{dataset!r} is none of the datasets {', '.join(NAMES)}")
    return OWN[dataset](root, options or SourceOptions())


def find_member(dataset: str, root: Path) -> Path | None:
    """Where below a family's folder a member lies, or None."""
    place = root / dataset
    return place if place.is_dir() else None


def needs(dataset: str) -> str:
    """One line: which files a dataset needs and where they come from."""
    return dataset
