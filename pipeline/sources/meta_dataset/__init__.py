"""Meta-Dataset's ten datasets, and MNIST, from the files their authors publish.

downloads ─► parts (what lies where) ─► a source's listing ─► raw (official classes) ─► Survey
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.sources.meta_dataset.arrays import Mnist, QuickDraw
from pipeline.sources.meta_dataset.classes import official_classes
from pipeline.sources.meta_dataset.coco import MsCoco
from pipeline.sources.meta_dataset.folders import CuBirds, Dtd, Omniglot, TrafficSign
from pipeline.sources.meta_dataset.imagenet import ImageNet, ImageNetV2
from pipeline.sources.meta_dataset.lists import Aircraft, Fungi, VggFlower
from pipeline.sources.meta_dataset.parts import Part
from pipeline.sources.meta_dataset.raw import RawSource

__all__ = ["DATASETS", "MD_FAMILY", "Dataset", "Part", "RawSource"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What is known of a dataset before it is there."""

    source: type[RawSource]

    @property
    def name(self) -> str:
        return self.source.official()

    @property
    def parts(self) -> tuple[Part, ...]:
        """The official files: name, where from, about how many bytes."""
        return self.source.parts

    @property
    def bytes(self) -> int:
        """To download, about."""
        return sum(part.bytes for part in self.parts)

    @property
    def classes(self) -> int:
        return len(official_classes(self.name))

    @property
    def images(self) -> int:
        return sum(entry.pictures for entry in official_classes(self.name))

    @property
    def folder(self) -> str:
        """The dataset's usual folder beside the others; both versions of ImageNet share one."""
        return self.name.removesuffix("_v2")

    def home(self, base: Path) -> Path | None:
        """The folder that holds the dataset, given the one that holds all; None if it is not there."""
        return next((root for root in (base / self.folder, base) if self.source.found(root)), None)


DATASETS: Final[Mapping[str, Dataset]] = {
    source.official(): Dataset(source)
    for source in (
        ImageNet,
        ImageNetV2,
        Omniglot,
        Aircraft,
        CuBirds,
        Dtd,
        QuickDraw,
        Fungi,
        VggFlower,
        TrafficSign,
        MsCoco,
        Mnist,
    )
}

MD_FAMILY: Final = tuple(name for name in DATASETS if name != "ilsvrc_2012_v2")
"""The datasets that `--dataset md` builds, in Meta-Dataset's order; the second ImageNet by name only."""
