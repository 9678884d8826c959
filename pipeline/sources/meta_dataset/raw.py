"""What the raw datasets share: their official classes, matched with the images that lie on disk."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from pipeline.errors import IntegrityError, SourceMissing, first_few
from pipeline.records import Item, Rejected, SourceFile, Survey
from pipeline.sources.archives import MemberTree, is_litter, source_file
from pipeline.sources.base import Source
from pipeline.sources.meta_dataset.classes import OfficialClass, official_classes
from pipeline.sources.meta_dataset.parts import DownloadPart, locate_part, missing_parts_error, open_part
from pipeline.sources.spans import FileSpan

log = logging.getLogger(__name__)


class ListedImage(NamedTuple):
    """One image of a class: those fields of its `Item` that do not depend on the class."""

    name: str
    span: FileSpan
    crop: tuple[int, int, int, int] | None = None
    group: str = ""
    frame: int = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class RawListing:
    """The images of a raw dataset, as they lie on disk."""

    images: Mapping[str, Iterable[ListedImage | Rejected]]
    """By class name; may be lazy iterators."""
    where: str
    """For messages."""
    rejected: Sequence[Rejected] = ()
    files: tuple[SourceFile, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Images per class, where that is known in advance and the limit per class leaves some out."""
    advice: str = ""
    """What may explain that a class has another number of images than the official one."""

    @classmethod
    def of_tree(
        cls,
        tree: MemberTree,
        images: Mapping[str, Iterable[ListedImage | Rejected]],
        rejected: Iterable[Rejected] = (),
        beside: Path | None = None,
    ) -> RawListing:
        """The images of one tree, with what was rejected; `beside` is a list that was read too."""
        where, files = tree.where, tree.files
        if beside is not None:
            where, files = f"{where} with {beside}", (*files, source_file(beside))
        return cls(images=images, where=where, rejected=(*tree.rejected, *rejected), files=files)


@dataclass(frozen=True, kw_only=True)
class RawSource(Source):
    """A dataset as its authors publish it. The default `name` of a subclass is the official one."""

    name: str = ""
    parts: ClassVar[tuple[DownloadPart, ...]]
    invert: ClassVar[bool] = False
    """Whether images are black on white and are to be inverted."""

    @classmethod
    def official_name(cls) -> str:
        """Meta-Dataset's name of the dataset; a source's `name`, its folder of shards, may differ."""
        return cls.name

    @classmethod
    def is_available(cls, root: Path) -> bool:
        """Whether all files that are needed are there; cheap, opens none of them."""
        return all(part.optional or locate_part(part, root) is not None for part in cls.parts)

    @classmethod
    def folder_name(cls) -> str:
        """Its usual folder beside the other datasets; both versions of ImageNet share one."""
        return cls.name.removesuffix("_v2")

    @classmethod
    def find_folder(cls, base: Path) -> Path | None:
        """The folder of the dataset: its own below `base`, or `base` itself; None if it is not there."""
        folders = (base / cls.folder_name(), base)
        return next((root for root in folders if cls.is_available(root)), None)

    @abstractmethod
    def list_images(self) -> RawListing:
        """List the images of each class; called when `is_available` holds."""

    def classes(self) -> tuple[OfficialClass, ...]:
        """The classes to build."""
        return official_classes(self.official_name())

    def survey(self) -> Survey:
        """List the official classes, which must all be there, and reject everything else."""
        if not self.is_available(self.root):
            raise missing_parts_error(self.official_name(), self.parts, self.root)
        classes, listing = self.classes(), self.list_images()
        names = [entry.record.name for entry in classes]
        if missing := [name for name in names if name not in listing.images]:
            raise SourceMissing(
                f"{self.official_name()} has {len(names):,} classes and {len(missing):,} of them are not in "
                f"{listing.where}: {first_few(missing)}; unpack or download it again, whole"
            )
        return Survey(
            classes=tuple(entry.record for entry in classes),
            items=self._items(classes, listing),
            files=listing.files,
            hierarchy=self.hierarchy(),
        )

    def hierarchy(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """The class graph of each split, where the dataset has one."""
        return {}

    def open_part(self, part: DownloadPart) -> MemberTree:
        """The contents of one download."""
        return open_part(part, self.root, self.scratch)

    def _items(self, classes: Sequence[OfficialClass], listing: RawListing) -> Iterator[Item | Rejected]:
        yield from listing.rejected
        official = {entry.record.name for entry in classes}
        for name in sorted(set(listing.images) - official):
            yield Rejected(name, f"is not one of the {len(official):,} classes of {self.official_name()}")
        sizes: Counter[str] = Counter()
        for class_id, entry in enumerate(classes):
            record = entry.record
            for image in listing.images[record.name]:
                if isinstance(image, Rejected):
                    yield image
                    continue
                sizes[record.name] += 1
                yield Item(
                    image.name,
                    class_id,
                    record.split,
                    *image.span,
                    crop=image.crop,
                    invert=self.invert,
                    group=image.group,
                    frame=image.frame,
                )
        self._check_sizes(classes, {**sizes, **listing.sizes}, listing)

    def _check_sizes(
        self, classes: Sequence[OfficialClass], sizes: Mapping[str, int], listing: RawListing
    ) -> None:
        empty = [entry.record.name for entry in classes if not sizes.get(entry.record.name)]
        if empty:
            raise IntegrityError(
                f"{len(empty):,} classes of {self.official_name()} have no picture in {listing.where}: "
                f"{first_few(empty)}; unpack or download it again, whole"
            )
        different = [
            f"{entry.record.name} {sizes[entry.record.name]:,} of {entry.images:,}"
            for entry in classes
            if sizes[entry.record.name] != entry.images
        ]
        if different:
            log.warning(
                "%s: %d of %d classes do not have the official number of pictures: %s%s",
                self.official_name(),
                len(different),
                len(classes),
                first_few(different),
                f"; {listing.advice}" if listing.advice else "",
            )


def list_by_folder(
    tree: MemberTree, class_of: Mapping[str, str], suffix: str, ignored_suffix: str = ""
) -> RawListing:
    """List a dataset in which a class is a folder; each other folder is rejected as one."""
    images: dict[str, list[ListedImage | Rejected]] = {}
    strays: Counter[str] = Counter()
    for path, span in tree.members.items():
        folder, _, file = path.rpartition("/")
        if is_litter(path) or (ignored_suffix and file.endswith(ignored_suffix)):
            continue
        if folder not in class_of:
            strays[folder or file] += 1
        elif not file.lower().endswith(suffix):
            reason = f"is not a {suffix} file, as all pictures of this dataset are"
            images.setdefault(class_of[folder], []).append(Rejected(path, reason))
        else:
            images.setdefault(class_of[folder], []).append(ListedImage(path, span))
    reason = "is not the folder of an official class; files in it: "
    rejected = (Rejected(name, f"{reason}{count:,}") for name, count in strays.items())
    return RawListing.of_tree(tree, images, rejected)


def list_member(tree: MemberTree, path: str, absent: str) -> ListedImage | Rejected:
    """An image of which a list says the path; rejected with the reason `absent` if it is not there."""
    if path in tree.members:
        return ListedImage(path, tree.members[path])
    return Rejected(path, absent)
