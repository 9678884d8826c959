"""What `--dataset` takes: every dataset by its name, and the families of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pipeline.errors import UsageError
from pipeline.sources.base import Source
from pipeline.sources.demo import DemoSource
from pipeline.sources.folder import FolderSource
from pipeline.sources.meta_dataset import DATASETS, MD_FAMILY
from pipeline.sources.meta_dataset.parts import size_text
from pipeline.sources.orbit.source import OrbitSource
from pipeline.sources.tfrecords.source import MetaRecordsSource, is_converted
from pipeline.sources.vtab.source import TASKS, VTAB_FAMILY, VtabSource, found, missing


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


Maker = Callable[[str, Path, SourceOptions], Source]


class Entry(NamedTuple):
    """One dataset of the catalogue."""

    family: str
    make: Maker


def _demo(name: str, _root: Path, _options: SourceOptions) -> Source:
    return DemoSource(name=name)


def _folder(name: str, root: Path, options: SourceOptions) -> Source:
    return FolderSource(name=name, root=root, split_by=options.split_by)


def _orbit(name: str, root: Path, options: SourceOptions) -> Source:
    return OrbitSource(
        name=name, root=root, frame_step=options.frame_step, max_frames=options.max_frames
    )


def _meta_dataset(dataset: str) -> Maker:
    def make(name: str, root: Path, _options: SourceOptions) -> Source:
        if is_converted(root):
            return MetaRecordsSource(name=name, root=root)
        return DATASETS[dataset].source(name=name, root=root)

    return make


def _vtab(task: str) -> Maker:
    def make(name: str, root: Path, options: SourceOptions) -> Source:
        return VtabSource(name=name, root=root, task=TASKS[task], protocol=options.protocol)

    return make


ENTRIES: Final[Mapping[str, Entry]] = {
    "demo": Entry("", _demo),
    "folder": Entry("", _folder),
    "orbit": Entry("", _orbit),
    **{name: Entry("md", _meta_dataset(name)) for name in DATASETS},
    **{name: Entry("vtab", _vtab(name)) for name in VTAB_FAMILY},
}
FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {"md": MD_FAMILY, "vtab": VTAB_FAMILY}


def open_source(dataset: str, root: Path, options: SourceOptions | None = None) -> Source:
    """The source that `--dataset` names, at `root`."""
    options = options or SourceOptions()
    if dataset not in ENTRIES:
        raise UsageError(f"{dataset!r} is none of the datasets {', '.join(ENTRIES)}")
    return ENTRIES[dataset].make(options.name or dataset, root, options)


def find_member(dataset: str, root: Path, options: SourceOptions) -> Path | None:
    """Where below a family's folder a member lies; None if it is not there."""
    if ENTRIES[dataset].family == "vtab":
        return root if found(root, TASKS[dataset], options.protocol) else None
    if is_converted(root / dataset):
        return root / dataset
    return DATASETS[dataset].home(root)


def needs(dataset: str, root: Path, options: SourceOptions) -> str:
    """One line: which files a member of a family needs, and where they come from."""
    if ENTRIES[dataset].family == "vtab":
        return str(missing(root, [TASKS[dataset]], options.protocol)[0])
    known = DATASETS[dataset]
    files = ", ".join(f"{part.file} ({size_text(part.bytes)}, {part.url})" for part in known.parts)
    return f"{dataset} needs {files} in {root / known.folder}"
