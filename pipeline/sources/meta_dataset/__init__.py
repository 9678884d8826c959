"""Meta-Dataset's ten datasets, and MNIST, from the files that their authors publish.

downloads ─► parts (where they lie) ─► list_images of a source ─► raw (official classes) ─► Survey
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.sources.meta_dataset.arrays import MnistSource, QuickDrawSource
from pipeline.sources.meta_dataset.coco import MsCocoSource
from pipeline.sources.meta_dataset.folders import CuBirdsSource, DtdSource, OmniglotSource, TrafficSignSource
from pipeline.sources.meta_dataset.imagenet import ImageNetSource, ImageNetV2Source
from pipeline.sources.meta_dataset.lists import AircraftSource, FungiSource, VggFlowerSource
from pipeline.sources.meta_dataset.raw import RawSource

META_DATASETS: Final[Mapping[str, type[RawSource]]] = {
    source.official_name(): source
    for source in (
        ImageNetSource,
        ImageNetV2Source,
        OmniglotSource,
        AircraftSource,
        CuBirdsSource,
        DtdSource,
        QuickDrawSource,
        FungiSource,
        VggFlowerSource,
        TrafficSignSource,
        MsCocoSource,
        MnistSource,
    )
}

IMAGENET_V1: Final = ImageNetSource.official_name()
IMAGENET_V2: Final = ImageNetV2Source.official_name()
MD_FAMILY: Final = tuple(name for name in META_DATASETS if name != IMAGENET_V1)
"""What `--dataset md` builds, in Meta-Dataset's order.

ImageNet is there once, as MD-v2 and the LITE paper train on it: all 1000 classes. Its first version has the same
images, 712 classes of them for training, and is built by its own name.
"""
