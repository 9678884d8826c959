"""Datasets in which a class is a folder: Omniglot, CUB-200-2011, DTD and GTSRB."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace
from typing import Final

from pipeline.records import Rejected
from pipeline.sources.archives import Tree
from pipeline.sources.meta_dataset.classes import OfficialClass
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.parts import located
from pipeline.sources.meta_dataset.raw import Listing, Picture, RawSource, by_folder

log = logging.getLogger(__name__)

TRACK: Final = re.compile(r"(\d+)_(\d+)\.ppm", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CuBirds(RawSource):
    """CUB-200-2011; its own split of pictures is not used."""

    name: str = "cu_birds"
    parts = DOWNLOADS["cu_birds"]

    def listing(self) -> Listing:
        """A folder for each class."""
        return _plain(self, ".jpg")


@dataclass(frozen=True, kw_only=True)
class Dtd(RawSource):
    """The Describable Textures Dataset."""

    name: str = "dtd"
    parts = DOWNLOADS["dtd"]

    def listing(self) -> Listing:
        """A folder for each class; one holds a file manager's leftover, as published."""
        return _plain(self, ".jpg", ".directory")


def _plain(source: RawSource, suffix: str, *ignored: str) -> Listing:
    tree = source.opened(source.parts[0])
    class_of = {name: name for name in (entry.record.name for entry in source.classes())}
    pictures, strays = by_folder(tree, class_of, suffix, ignored)
    rejected = (*tree.rejected, *strays)
    return Listing(pictures=pictures, where=tree.where, rejected=rejected, files=tree.files)


@dataclass(frozen=True, kw_only=True)
class TrafficSign(RawSource):
    """The training pictures of the German Traffic Sign Recognition Benchmark."""

    name: str = "traffic_sign"
    parts = DOWNLOADS["traffic_sign"]

    def listing(self) -> Listing:
        """A folder for each class; TTTTT_FFFFF.ppm is frame FFFFF of the approach to sign TTTTT."""
        tree = self.opened(self.parts[0])
        names = [entry.record.name for entry in self.classes()]
        class_of = {f"{int(name.split('.')[0]):05d}": name for name in names}
        found, strays = by_folder(tree, class_of, ".ppm", [".csv"])
        pictures = {name: [_with_track(entry) for entry in group] for name, group in found.items()}
        rejected = (*tree.rejected, *strays)
        return Listing(pictures=pictures, where=tree.where, rejected=rejected, files=tree.files)


def _with_track(entry: Picture | Rejected) -> Picture | Rejected:
    if isinstance(entry, Rejected):
        return entry
    folder, _, file = entry.name.rpartition("/")
    match = TRACK.fullmatch(file)
    if match is None:
        return Rejected(entry.name, "is not named TTTTT_FFFFF.ppm, its track and frame")
    return entry._replace(group=f"{folder}/{match[1]}", frame=int(match[2]))


@dataclass(frozen=True, kw_only=True)
class Omniglot(RawSource):
    """Characters of 50 alphabets. With the background archive alone, 30: no class to test on."""

    name: str = "omniglot"
    parts = DOWNLOADS["omniglot"]
    invert = True

    def classes(self) -> tuple[OfficialClass, ...]:
        """All classes, or those of the archive that is there."""
        classes = super().classes()
        if located(self.parts[1], self.root) is not None:
            return classes
        return tuple(entry for entry in classes if entry.record.split != "test")

    def listing(self) -> Listing:
        """<alphabet>/characterNN/*.png of both archives."""
        classes = self.classes()
        class_of = {
            f"{record.superclass}/{record.name.removeprefix(record.superclass + '-')}": record.name
            for record in (entry.record for entry in classes)
        }
        evaluation = self.parts[1]
        there = [part for part in self.parts if located(part, self.root) is not None]
        if evaluation not in there:
            log.warning(
                "omniglot: only the background set is built, %d classes and none to test on; for the "
                "others put %s into %s",
                len(classes),
                evaluation,
                self.root,
            )
        trees = [self.opened(part) for part in there]
        whole = _joined(trees)
        pictures, strays = by_folder(whole, class_of, ".png")
        rejected = (*whole.rejected, *strays)
        return Listing(pictures=pictures, where=whole.where, rejected=rejected, files=whole.files)


def _joined(trees: list[Tree]) -> Tree:
    first, *others = trees
    for tree in others:
        first = replace(
            first,
            members=first.members | tree.members,
            rejected=first.rejected + tree.rejected,
            files=first.files + tree.files,
            where=f"{first.where} and {tree.where}",
        )
    return first
