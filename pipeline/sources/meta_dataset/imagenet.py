"""ImageNet's training images (ILSVRC 2012): the tar of 1000 tars, those tars, or their folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import IntegrityError
from pipeline.records import Rejected
from pipeline.sources.archives import is_litter, source_file
from pipeline.sources.folder_listing import list_folder
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.parts import locate_part, search_folders
from pipeline.sources.meta_dataset.raw import ListedImage, RawListing, RawSource
from pipeline.sources.spans import FileSpan, read_list, span_file
from pipeline.sources.tar_listing import tar_members
from pipeline.sources.wordnet import split_graphs

log = logging.getLogger(__name__)

DUPLICATE_LISTS: Final = tuple(
    f"ImageNet_{other}_duplicates.txt" for other in ("Caltech101", "Caltech256", "CUBirds")
)
DUPLICATES_URL: Final = (
    "https://github.com/google-research/meta-dataset/tree/main/meta_dataset/dataset_conversion"
)
DUPLICATES_COUNT: Final = 403
COMPANIONS: Final = {"wordnet.is_a.txt", "words.txt", "ILSVRC2012_img_train.tar", *DUPLICATE_LISTS}
"""Files that Meta-Dataset's instructions ask people to put beside the classes."""
IMAGENET_SUFFIX: Final = ".jpeg"

ImagesByClass = dict[str, Iterator[ListedImage | Rejected]]


@dataclass(frozen=True, kw_only=True)
class ImageNetSource(RawSource):
    """Meta-Dataset's first version: the classes below two WordNet nodes are held out."""

    name: str = "ilsvrc_2012"
    parts = DOWNLOADS["ilsvrc_2012"]

    def list_images(self) -> RawListing:
        """List the classes; each is read when its turn comes, as 1.3 million paths take much memory."""
        path = locate_part(self.parts[0], self.root)
        assert path is not None  # `is_available` holds
        lists, skip = self._read_duplicate_lists()
        list_classes = _folder_classes if path.is_dir() else _tar_classes
        images, strays = list_classes(path, self.root, skip)
        return RawListing(
            images=images,
            where=str(path),
            rejected=strays,
            files=tuple(map(source_file, lists if path.is_dir() else (path, *lists))),
            advice="" if len(lists) == len(DUPLICATE_LISTS) else _duplicates_advice(lists, self.root),
        )

    def hierarchy(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """WordNet above the classes of each split."""
        return split_graphs()

    def _read_duplicate_lists(self) -> tuple[list[Path], frozenset[str]]:
        """The lists of images that other datasets have too, and the names in them."""
        root = self.root.parent if self.root.is_file() else self.root
        paths = [folder / name for folder in search_folders(root) for name in DUPLICATE_LISTS]
        lists = [path for path in paths if path.is_file()]
        lines = [line for path in lists for line in read_list(path).decode("utf-8", "replace").splitlines()]
        entries = (line.split("#")[0].strip() for line in lines)
        names = frozenset(entry.rpartition("/")[2] for entry in entries if entry)
        if names:
            log.info("imagenet: %d pictures that other datasets have too are left out", len(names))
        return lists, names


@dataclass(frozen=True, kw_only=True)
class ImageNetV2Source(ImageNetSource):
    """Meta-Dataset's second version: all 1000 classes are for training."""

    name: str = "ilsvrc_2012_v2"

    def hierarchy(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """WordNet above the 1000 classes."""
        return split_graphs(all_train=True)


def _duplicates_advice(lists: list[Path], root: Path) -> str:
    missing = sorted(set(DUPLICATE_LISTS) - {path.name for path in lists})
    return (
        f"Meta-Dataset leaves out {DUPLICATES_COUNT} pictures that other datasets have too; to do so "
        f"put {', '.join(missing)} ({DUPLICATES_URL}) into {root}"
    )


def _folder_classes(folder: Path, root: Path, skip: frozenset[str]) -> tuple[ImagesByClass, list[Rejected]]:
    classes: ImagesByClass = {}
    strays: list[Rejected] = []
    for entry in sorted(folder.iterdir()):
        file = entry.relative_to(root).as_posix()
        if entry.name in COMPANIONS or is_litter(entry.name):
            continue
        if entry.is_dir():
            classes[entry.name] = _list_folder(entry, file, skip)
        elif entry.suffix == ".tar" and entry.is_file():
            span = FileSpan(span_file(file), 0, entry.stat().st_size)
            classes.setdefault(entry.stem, _list_tar(entry, span, entry.stem, skip))
        else:
            strays.append(Rejected(entry.name, "lies in no class's folder"))
    return classes, strays


def _tar_classes(path: Path, root: Path, skip: frozenset[str]) -> tuple[ImagesByClass, list[Rejected]]:
    file = span_file(path.relative_to(root).as_posix())
    classes: ImagesByClass = {}
    strays: list[Rejected] = []
    for name, span in _tar_entries(path, FileSpan(file, 0, path.stat().st_size)):
        if isinstance(span, str):
            strays.append(Rejected(name, span))
        elif name.endswith(".tar"):
            class_name = Path(name).stem
            classes[class_name] = _list_tar(path, span, class_name, skip)
        else:
            strays.append(Rejected(name, "is not the tar of a class"))
            if not classes:
                raise IntegrityError(
                    f"{path} should hold a tar for each class and holds {name}; it is not the official "
                    f"file: {DOWNLOADS['ilsvrc_2012'][0]}"
                )
    return classes, strays


def _list_folder(folder: Path, file: str, skip: frozenset[str]) -> Iterator[ListedImage | Rejected]:
    for entry, span in list_folder(folder, file):
        yield from _listed_image(folder.name, entry.name, span, skip)


def _list_tar(
    path: Path, tar: FileSpan, class_name: str, skip: frozenset[str]
) -> Iterator[ListedImage | Rejected]:
    for name, span in _tar_entries(path, tar):
        yield from _listed_image(class_name, name, span, skip)


def _listed_image(
    class_name: str, name: str, span: FileSpan | str, skip: frozenset[str]
) -> Iterator[ListedImage | Rejected]:
    file = name.rpartition("/")[2]
    if file in skip or is_litter(name):
        return
    if isinstance(span, str):
        yield Rejected(f"{class_name}/{name}", span)
    elif not name.lower().endswith(IMAGENET_SUFFIX):
        reason = f"is not a {IMAGENET_SUFFIX} file, as all pictures here are"
        yield Rejected(f"{class_name}/{name}", reason)
    else:
        yield ListedImage(f"{class_name}/{file}", span)


def _tar_entries(path: Path, tar: FileSpan) -> Iterator[tuple[str, FileSpan | str]]:
    """The members of a tar that lies at a span of a file, which may be a larger tar."""
    try:
        with path.open("rb") as handle:
            handle.seek(tar.offset)
            yield from tar_members(handle, tar.file, tar.offset + tar.length)
    except ValueError as error:
        raise IntegrityError(
            f"{path} is no tar at byte {tar.offset:,} ({error}); download it again"
        ) from error
