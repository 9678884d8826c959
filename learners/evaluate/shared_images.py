"""Datasets that hold the same images under two names, and those that a benchmark has for its tests alone."""

from __future__ import annotations

import re
from typing import Final

from pipeline.samplers.vtab import VTAB_GROUPS

SHARED_IMAGES: Final = (
    # The 8,189 photographs of Oxford's Flowers 102, as Meta-Dataset and as VTAB have them; their classes have the
    # same names, "001.pink primrose" and "pink primrose".
    ("vgg_flower", "flowers102"),
    # ImageNet's training images: Meta-Dataset's first version splits the classes that the second trains on.
    ("ilsvrc_2012", "ilsvrc_2012_v2"),
    # Two questions of VTAB about the same images each: TFDS' clevr, dsprites and smallnorb.
    ("clevr_count", "clevr_distance"),
    ("dsprites_location", "dsprites_orientation"),
    ("smallnorb_azimuth", "smallnorb_elevation"),
)
"""Pairs of datasets with the same images.

MNIST is not VTAB's SVHN, nor CIFAR-100 a part of ImageNet. The 403 images that ImageNet has in common with Caltech-101,
Caltech-256 and the birds are left out where the build has Meta-Dataset's lists of them.
"""
TEST_ONLY: Final = {
    **dict.fromkeys((task for tasks in VTAB_GROUPS.values() for task in tasks), "VTAB"),
    "mscoco": "MD-v2",
    "traffic_sign": "MD-v2",
}
"""Datasets none of whose classes their benchmark trains on, and the benchmark that tests them."""
CLASS_NUMBER: Final = re.compile(r"^\d+\.")


def other_names(dataset: str) -> tuple[str, ...]:
    """The names of other datasets with the images of this one.

    >>> other_names("vgg_flower")
    ('flowers102',)
    """
    return tuple(name for pair in SHARED_IMAGES if dataset in pair for name in pair if name != dataset)


def plain_class_name(name: str) -> str:
    """A class's name without its dataset's numbering.

    >>> plain_class_name("012.Colt's foot")
    "colt's foot"
    """
    return CLASS_NUMBER.sub("", name).casefold()
