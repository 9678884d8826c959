"""What the raw datasets share: official classes on one side, pictures found on disk on the other."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.records import Item, Rejected, SourceFile, Survey
from pipeline.sources.archives import Tree
from pipeline.sources.base import Source
from pipeline.sources.folder import IGNORED
from pipeline.sources.meta_dataset.classes import OfficialClass, official_classes
from pipeline.sources.meta_dataset.parts import Part, listed, located, needed, opened
from pipeline.sources.spans import Span

log = logging.getLogger(__name__)


class Picture(NamedTuple):
    """One picture of a class; the fields of an `Item` that are not the class's."""

    name: str
    span: Span
    crop: tuple[int, int, int, int] | None = None
    group: str = ""
    frame: int = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What was found on disk."""

    pictures: Mapping[str, Iterable[Picture | Rejected]]
    """By class name; may be lazy."""
    where: str
    """For messages."""
    rejected: Sequence[Rejected] = ()
    files: tuple[SourceFile, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Pictures in a class, where that is known without listing them and not all are listed."""
    advice: str = ""
    """What may explain that a class has another number of pictures than the official one."""


@dataclass(frozen=True, kw_only=True)
class RawSource(Source):
    """A dataset as its authors publish it. A subclass's default `name` is the official one."""

    name: str = ""
    parts: ClassVar[tuple[Part, ...]]
    invert: ClassVar[bool] = False
    """Black on white, to be turned over."""

    @classmethod
    def official(cls) -> str:
        """Meta-Dataset's name of the dataset; an instance's shards may be called otherwise."""
        return cls.name

    @classmethod
    def found(cls, root: Path) -> bool:
        """Whether everything that is needed is there; cheap, opens nothing."""
        return all(part.optional or located(part, root) is not None for part in cls.parts)

    @abstractmethod
    def listing(self) -> Listing:
        """Find the pictures of each class; called when `found` holds."""

    def classes(self) -> tuple[OfficialClass, ...]:
        """The classes that are to be built."""
        return official_classes(self.official())

    def survey(self) -> Survey:
        """Every official class must be there; anything else that is there is reported."""
        if not self.found(self.root):
            raise needed(self.official(), self.parts, self.root)
        classes, listing = self.classes(), self.listing()
        names = [entry.record.name for entry in classes]
        if missing := [name for name in names if name not in listing.pictures]:
            raise SourceMissing(
                f"{self.official()} has {len(names):,} classes and {len(missing):,} of them are not in "
                f"{listing.where}: {listed(missing)}; unpack or download it again, whole"
            )
        return Survey(
            classes=tuple(entry.record for entry in classes),
            items=self._items(classes, listing),
            files=listing.files,
            hierarchy=self.hierarchy(),
        )

    def hierarchy(self) -> Mapping[str, Mapping[str, tuple[str, ...]]]:
        """The graph of each split, where the dataset has one."""
        return {}

    def opened(self, part: Part) -> Tree:
        """The contents of one part."""
        return opened(part, self.root, self.scratch)

    def _items(
        self, classes: Sequence[OfficialClass], listing: Listing
    ) -> Iterator[Item | Rejected]:
        yield from listing.rejected
        known = {entry.record.name for entry in classes}
        for name in sorted(set(listing.pictures) - known):
            yield Rejected(name, f"is not one of the {len(known):,} classes of {self.official()}")
        sizes: Counter[str] = Counter()
        for class_id, entry in enumerate(classes):
            record = entry.record
            for picture in listing.pictures[record.name]:
                if isinstance(picture, Rejected):
                    yield picture
                    continue
                sizes[record.name] += 1
                yield Item(
                    picture.name,
                    class_id,
                    record.split,
                    *picture.span,
                    crop=picture.crop,
                    invert=self.invert,
                    group=picture.group,
                    frame=picture.frame,
                )
        self._check_sizes(classes, {**sizes, **listing.sizes}, listing)

    def _check_sizes(
        self, classes: Sequence[OfficialClass], sizes: Mapping[str, int], listing: Listing
    ) -> None:
        empty = [entry.record.name for entry in classes if not sizes.get(entry.record.name)]
        if empty:
            raise IntegrityError(
                f"{len(empty):,} classes of {self.official()} have no picture in {listing.where}: "
                f"{listed(empty)}; unpack or download it again, whole"
            )
        other = [
            f"{entry.record.name} {sizes[entry.record.name]:,} of {entry.pictures:,}"
            for entry in classes
            if sizes[entry.record.name] != entry.pictures
        ]
        if other:
            log.warning(
                "%s: %d of %d classes do not have the official number of pictures: %s%s",
                self.official(),
                len(other),
                len(classes),
                listed(other),
                f"; {listing.advice}" if listing.advice else "",
            )


def by_folder(
    tree: Tree, class_of: Mapping[str, str], suffix: str, ignored: Sequence[str] = ()
) -> tuple[dict[str, list[Picture | Rejected]], list[Rejected]]:
    """The pictures of each class where a class is a folder, and what lies in no class's folder."""
    pictures: dict[str, list[Picture | Rejected]] = {}
    strays: Counter[str] = Counter()
    for path, span in tree.members.items():
        folder, _, file = path.rpartition("/")
        if file.lower() in IGNORED or file.endswith(tuple(ignored)):
            continue
        if folder not in class_of:
            strays[folder or file] += 1
        elif not file.lower().endswith(suffix):
            reason = f"is not a {suffix} file, as all pictures of this dataset are"
            pictures.setdefault(class_of[folder], []).append(Rejected(path, reason))
        else:
            pictures.setdefault(class_of[folder], []).append(Picture(path, span))
    reason = "is not the folder of an official class; files in it: "
    return pictures, [Rejected(name, f"{reason}{count:,}") for name, count in strays.items()]
