"""The datasets and families of datasets that `--dataset` takes, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

from pipeline.errors import UsageError
from pipeline.settings import setting
from pipeline.sources.base import Source
from pipeline.sources.demo import DemoSource
from pipeline.sources.folder import FolderSource
from pipeline.sources.meta_dataset import IMAGENET_V1, IMAGENET_V2, MD_FAMILY, META_DATASETS
from pipeline.sources.meta_dataset.parts import size_text
from pipeline.sources.orbit.source import OrbitSource
from pipeline.sources.tfrecords.source import MetaRecordsSource, is_converted
from pipeline.sources.tfrecords.spec import SPEC_FILE, read_spec
from pipeline.sources.vtab.files import is_available, missing_tasks
from pipeline.sources.vtab.source import VtabSource
from pipeline.sources.vtab.tasks import VTAB_FAMILY, VTAB_TASKS


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceOptions:
    """Options of some sources beyond their location."""

    name: str = ""
    """Another name for the dataset."""
    split_by: str = setting("", "folder: 'folder', or a file of lines 'name split'", metavar="HOW")
    protocol: Literal["both", "vtab", "lite"] = setting("both", "vtab: whose support and query sets")
    frame_step: int = setting(1, "orbit: keep every K-th frame", metavar="K")
    max_frames: int | None = setting(None, "orbit: at most K frames of a video", metavar="K")


SourceFactory = Callable[[str, Path, SourceOptions], Source]


class CatalogueEntry(NamedTuple):
    """One dataset of the catalogue."""

    family: str
    open: SourceFactory


def _open_demo(name: str, _root: Path, _options: SourceOptions) -> Source:
    return DemoSource(name=name)


def _open_folder(name: str, root: Path, options: SourceOptions) -> Source:
    return FolderSource(name=name, root=root, split_by=options.split_by)


def _open_orbit(name: str, root: Path, options: SourceOptions) -> Source:
    return OrbitSource(name=name, root=root, frame_step=options.frame_step, max_frames=options.max_frames)


def _meta_dataset_factory(dataset: str) -> SourceFactory:
    def open_raw_or_converted(name: str, root: Path, _options: SourceOptions) -> Source:
        if _holds_records(dataset, root):
            return MetaRecordsSource(name=name, root=root)
        return META_DATASETS[dataset](name=name, root=root)

    return open_raw_or_converted


def _vtab_factory(task: str) -> SourceFactory:
    def open_task(name: str, root: Path, options: SourceOptions) -> Source:
        return VtabSource(name=name, root=root, task=VTAB_TASKS[task], protocol=options.protocol)

    return open_task


ENTRIES: Final[Mapping[str, CatalogueEntry]] = {
    "demo": CatalogueEntry("", _open_demo),
    "folder": CatalogueEntry("", _open_folder),
    "orbit": CatalogueEntry("", _open_orbit),
    **{name: CatalogueEntry("md", _meta_dataset_factory(name)) for name in META_DATASETS},
    **{name: CatalogueEntry("vtab", _vtab_factory(name)) for name in VTAB_FAMILY},
}
FAMILIES: Final[Mapping[str, tuple[str, ...]]] = {"md": MD_FAMILY, "vtab": VTAB_FAMILY}


def open_source(dataset: str, root: Path, options: SourceOptions | None = None) -> Source:
    """Open the source that `--dataset` names, at `root`."""
    options = options or SourceOptions()
    if dataset not in ENTRIES:
        raise UsageError(f"{dataset!r} is none of the datasets {', '.join(ENTRIES)}")
    return ENTRIES[dataset].open(options.name or dataset, root, options)


def find_member(dataset: str, root: Path, options: SourceOptions) -> Path | None:
    """Where a member of a family lies below the family's folder; None if it is not there."""
    if ENTRIES[dataset].family == "vtab":
        return root if is_available(root, VTAB_TASKS[dataset], options.protocol) else None
    raw = META_DATASETS[dataset]
    for folder in (root / dataset, root / raw.folder_name()):
        if _holds_records(dataset, folder):
            return folder
    return raw.find_folder(root)


def _holds_records(dataset: str, folder: Path) -> bool:
    """Whether a folder holds the dataset as Meta-Dataset's tools convert it.

    The LITE authors' dataset_spec.json makes MD-v2's ImageNet of the records of the first version, in its folder.
    """
    if not is_converted(folder):
        return False
    if dataset != IMAGENET_V2 or folder.name == IMAGENET_V2:
        return True
    return all(record.split == "train" for record in read_spec(folder / SPEC_FILE).classes)


def describe_needed_files(dataset: str, root: Path, options: SourceOptions) -> str:
    """Say in one line which files a member of a family needs, and where they come from."""
    if ENTRIES[dataset].family == "vtab":
        return str(missing_tasks(root, [VTAB_TASKS[dataset]], options.protocol)[0])
    raw = META_DATASETS[dataset]
    files = ", ".join(f"{part.file} ({size_text(part.bytes)}, {part.url})" for part in raw.parts)
    folder = root / raw.folder_name()
    needed = f"{dataset} needs {files} in {folder}"
    if dataset == IMAGENET_V2 and is_converted(folder):
        needed += (
            f"; the records there are {IMAGENET_V1}'s, which --dataset {IMAGENET_V1} --source {folder} builds"
        )
    return needed
