"""ImageNet's training pictures (ILSVRC 2012): the tar of 1000 tars, those tars, or their folders."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import IntegrityError
from pipeline.records import Rejected, SourceFile
from pipeline.sources.archives import tar_members
from pipeline.sources.folder import IGNORED
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.parts import located, places
from pipeline.sources.meta_dataset.raw import Listing, Picture, RawSource
from pipeline.sources.spans import Span
from pipeline.sources.wordnet import split_graphs

log = logging.getLogger(__name__)

DUPLICATES: Final = tuple(
    f"ImageNet_{other}_duplicates.txt" for other in ("Caltech101", "Caltech256", "CUBirds")
)
DUPLICATES_URL: Final = (
    "https://github.com/google-research/meta-dataset/tree/main/meta_dataset/dataset_conversion"
)
DUPLICATES_COUNT: Final = 403
COMPANIONS: Final = {"wordnet.is_a.txt", "words.txt", "ILSVRC2012_img_train.tar", *DUPLICATES}
"""What Meta-Dataset's instructions have people put beside the classes."""
SUFFIX: Final = ".jpeg"


@dataclass(frozen=True, kw_only=True)
class ImageNet(RawSource):
    """Meta-Dataset's first version: the classes below two WordNet nodes are held out."""

    name: str = "ilsvrc_2012"
    parts = DOWNLOADS["ilsvrc_2012"]

    def listing(self) -> Listing:
        """Class by class, each read when its turn comes: the paths of 1.3 million files are many."""
        path = located(self.parts[0], self.root)
        assert path is not None  # `found` holds
        lists, skip = self._duplicates()
        advice = "" if len(lists) == len(DUPLICATES) else _advice(lists, self.root)
        list_files = tuple(SourceFile(name=p.name, bytes=p.stat().st_size) for p in lists)
        if path.is_dir():
            found, strays = _folder_classes(path, self.root, skip)
            return Listing(
                pictures=found, where=str(path), rejected=strays, files=list_files, advice=advice
            )
        archive = SourceFile(name=path.name, bytes=path.stat().st_size)
        found, strays = _tar_classes(path, self.root, skip)
        return Listing(
            pictures=found,
            where=str(path),
            rejected=strays,
            files=(archive, *list_files),
            advice=advice,
        )

    def hierarchy(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """WordNet above the classes of each split."""
        return split_graphs()

    def _duplicates(self) -> tuple[list[Path], frozenset[str]]:
        """The lists of pictures that other datasets have too, and the names in them."""
        root = self.root.parent if self.root.is_file() else self.root
        beside = [place / name for place in places(root) for name in DUPLICATES]
        lists = [path for path in beside if path.is_file()]
        lines = [line for path in lists for line in path.read_text("utf-8").splitlines()]
        entries = (line.split("#")[0].strip() for line in lines)
        names = frozenset(entry.rpartition("/")[2] for entry in entries if entry)
        if names:
            log.info("imagenet: %d pictures that other datasets have too are left out", len(names))
        return lists, names


@dataclass(frozen=True, kw_only=True)
class ImageNetV2(ImageNet):
    """Meta-Dataset's second version: all 1000 classes are for training."""

    name: str = "ilsvrc_2012_v2"

    def hierarchy(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """WordNet above the 1000 classes."""
        return split_graphs(all_train=True)


def _advice(lists: list[Path], root: Path) -> str:
    missing = sorted(set(DUPLICATES) - {path.name for path in lists})
    return (
        f"Meta-Dataset leaves out {DUPLICATES_COUNT} pictures that other datasets have too; to do so "
        f"put {', '.join(missing)} ({DUPLICATES_URL}) into {root}"
    )


Classes = dict[str, Iterator[Picture | Rejected]]


def _folder_classes(
    folder: Path, root: Path, skip: frozenset[str]
) -> tuple[Classes, list[Rejected]]:
    classes: Classes = {}
    strays: list[Rejected] = []
    for entry in sorted(folder.iterdir()):
        file = entry.relative_to(root).as_posix()
        if entry.name in COMPANIONS or entry.name.lower() in IGNORED:
            continue
        if entry.is_dir():
            classes[entry.name] = _from_folder(entry, file, skip)
        elif entry.suffix == ".tar":
            span = Span(file, 0, entry.stat().st_size)
            classes.setdefault(entry.stem, _from_tar(entry, span, entry.stem, skip))
        else:
            strays.append(Rejected(entry.name, "lies in no class's folder"))
    return classes, strays


def _tar_classes(path: Path, root: Path, skip: frozenset[str]) -> tuple[Classes, list[Rejected]]:
    file = "" if path == root else path.relative_to(root).as_posix()
    classes: Classes = {}
    strays: list[Rejected] = []
    for name, span in _tar_entries(path, Span(file, 0, path.stat().st_size)):
        if isinstance(span, str):
            strays.append(Rejected(name, span))
        elif name.endswith(".tar"):
            class_name = Path(name).stem
            classes[class_name] = _from_tar(path, span, class_name, skip)
        else:
            strays.append(Rejected(name, "is not the tar of a class"))
            if not classes:
                raise IntegrityError(
                    f"{path} should hold a tar for each class and holds {name}; it is not the official "
                    f"file: {DOWNLOADS['ilsvrc_2012'][0]}"
                )
    return classes, strays


def _from_folder(folder: Path, file: str, skip: frozenset[str]) -> Iterator[Picture | Rejected]:
    for name in sorted(entry.name for entry in folder.iterdir()):
        yield from _entry(folder.name, name, Span(f"{file}/{name}"), skip)


def _from_tar(
    path: Path, tar: Span, class_name: str, skip: frozenset[str]
) -> Iterator[Picture | Rejected]:
    for name, span in _tar_entries(path, tar):
        yield from _entry(class_name, name, span, skip)


def _entry(
    class_name: str, name: str, span: Span | str, skip: frozenset[str]
) -> Iterator[Picture | Rejected]:
    file = name.rpartition("/")[2]
    if file in skip or file.lower() in IGNORED:
        return
    if isinstance(span, str):
        yield Rejected(f"{class_name}/{name}", span)
    elif not name.lower().endswith(SUFFIX):
        yield Rejected(f"{class_name}/{name}", f"is not a {SUFFIX} file, as all pictures here are")
    else:
        yield Picture(f"{class_name}/{file}", span)


def _tar_entries(path: Path, tar: Span) -> Iterator[tuple[str, Span | str]]:
    """The members of a tar that lies at a span of a file, which may be a larger tar."""
    end = tar.offset + tar.length
    try:
        with path.open("rb") as handle:
            handle.seek(tar.offset)
            for name, span in tar_members(handle, tar.file):
                # A tar without its end would run on into whatever follows it in the larger one.
                if isinstance(span, Span) and span.offset + span.length > end:
                    raise IntegrityError(f"{path} is damaged: {name} leaves the tar of its class")
                yield name, span
    except (tarfile.TarError, EOFError) as error:
        raise IntegrityError(
            f"{path} is no tar at byte {tar.offset:,} ({error}); download it again"
        ) from error
