"""Datasets in which a class is a folder: Omniglot, CUB-200-2011, DTD and GTSRB."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from pipeline.records import Rejected
from pipeline.sources.archives import MemberTree
from pipeline.sources.meta_dataset.classes import OfficialClass
from pipeline.sources.meta_dataset.downloads import DOWNLOADS
from pipeline.sources.meta_dataset.parts import locate_part
from pipeline.sources.meta_dataset.raw import ListedImage, RawListing, RawSource, list_by_folder

log = logging.getLogger(__name__)

TRACK: Final = re.compile(r"(\d+)_(\d+)\.ppm", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class JpegFolderSource(RawSource):
    """A dataset of JPEGs in one folder for each class, of the class's name."""

    def list_images(self) -> RawListing:
        """List the folders of the classes."""
        names = [entry.record.name for entry in self.classes()]
        return list_by_folder(self.open_part(self.parts[0]), dict(zip(names, names, strict=True)), ".jpg")


@dataclass(frozen=True, kw_only=True)
class CuBirdsSource(JpegFolderSource):
    """CUB-200-2011; its own split into training and test images is not used."""

    name: str = "cu_birds"
    parts = DOWNLOADS["cu_birds"]


@dataclass(frozen=True, kw_only=True)
class DtdSource(JpegFolderSource):
    """The Describable Textures Dataset."""

    name: str = "dtd"
    parts = DOWNLOADS["dtd"]


@dataclass(frozen=True, kw_only=True)
class TrafficSignSource(RawSource):
    """The training images of the German Traffic Sign Recognition Benchmark."""

    name: str = "traffic_sign"
    parts = DOWNLOADS["traffic_sign"]

    def list_images(self) -> RawListing:
        """List the class folders; TTTTT_FFFFF.ppm is frame FFFFF of the drive past sign TTTTT."""
        names = [entry.record.name for entry in self.classes()]
        class_of = {f"{int(name.split('.')[0]):05d}": name for name in names}
        listing = list_by_folder(self.open_part(self.parts[0]), class_of, ".ppm", ".csv")
        images = {name: map(_with_track, entries) for name, entries in listing.images.items()}
        return replace(listing, images=images)


def _with_track(entry: ListedImage | Rejected) -> ListedImage | Rejected:
    """The image with its track and frame, which its name says."""
    if isinstance(entry, Rejected):
        return entry
    folder, _, file = entry.name.rpartition("/")
    match = TRACK.fullmatch(file)
    if match is None:
        return Rejected(entry.name, "is not named TTTTT_FFFFF.ppm, its track and frame")
    return entry._replace(group=f"{folder}/{match[1]}", frame=int(match[2]))


@dataclass(frozen=True, kw_only=True)
class OmniglotSource(RawSource):
    """Characters of 50 alphabets; of 30, none to test on, if only the background archive is there."""

    name: str = "omniglot"
    parts = DOWNLOADS["omniglot"]
    invert = True

    def classes(self) -> tuple[OfficialClass, ...]:
        """All classes, or those of the background archive if only that is there."""
        classes = super().classes()
        if locate_part(self.parts[1], self.root) is not None:
            return classes
        return tuple(entry for entry in classes if entry.record.split != "test")

    def list_images(self) -> RawListing:
        """List <alphabet>/characterNN/*.png of both archives."""
        records = [entry.record for entry in self.classes()]
        class_of = {
            f"{record.superclass}/{record.name.removeprefix(record.superclass + '-')}": record.name
            for record in records
        }
        evaluation = self.parts[1]
        available = [part for part in self.parts if locate_part(part, self.root) is not None]
        if evaluation not in available:
            log.warning(
                "omniglot: only the background set is built, %d classes and none to test on; for the "
                "others put %s into %s",
                *(len(records), evaluation, self.root),
            )
        return list_by_folder(_join_trees(map(self.open_part, available)), class_of, ".png")


def _join_trees(trees: Iterable[MemberTree]) -> MemberTree:
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
