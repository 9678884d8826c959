"""VTAB's label functions: the features of a stored example become a class number.

The arithmetic is that of google-research/task_adaptation. Depths are stored as float32, in which the
thresholds are exact, so that a comparison here has the same result as in TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from pipeline.sources.tfrecords.framing import FeatureValues

Example: TypeAlias = Mapping[str, FeatureValues]

CLEVR_DEPTHS: Final = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DEPTHS: Final = (-100.0, 8.0, 20.0, 999.0)  # metres
NO_VEHICLE: Final = 1000.0  # metres
VEHICLES: Final = 3  # KITTI's first object types: car, van, truck
FEWEST_OBJECTS: Final = 3  # CLEVR's scenes have 3 to 10


def stored_label(example: Example, *, name: str = "label") -> int:
    """The stored class number, unchanged."""
    return int(example[name][0])


def clevr_count(example: Example) -> int:
    """The number of objects in the scene: 3 to 10 become 0 to 7."""
    return len(example["objects/size"]) - FEWEST_OBJECTS


def clevr_distance(example: Example) -> int:
    """The bin of the nearest object's depth; pixel_coords holds x, y, depth of each object in turn."""
    return depth_bin([float(z) for z in example["objects/pixel_coords"][2::3]], CLEVR_DEPTHS)


def kitti_distance(example: Example) -> int:
    """The bin of the nearest vehicle's depth; location holds x, y, z of each object in turn."""
    types = [int(kind) for kind in example["objects/type"]]
    depths = [float(z) for z in example["objects/location"][2::3]]
    vehicles = [z for z, kind in zip(depths, types, strict=True) if kind < VEHICLES]
    return depth_bin([*vehicles, NO_VEHICLE], KITTI_DEPTHS)


def depth_bin(depths: Sequence[float], thresholds: Sequence[float]) -> int:
    """The position of the last threshold below the smallest depth; -1 if there is none."""
    nearest = min(depths)
    return max((i for i, threshold in enumerate(thresholds) if threshold < nearest), default=-1)


def dsprites_orientation(example: Example) -> int:
    """dSprites: 40 angles become 16 classes, alternately of three and two angles."""
    return orientation_bin(stored_label(example, name="label_orientation"))


def orientation_bin(angle: int) -> int:
    """The class of one of 40 angles."""
    return int(angle // 2.5)


def dsprites_location(example: Example) -> int:
    """dSprites: 32 positions along x become 16 classes."""
    return location_bin(stored_label(example, name="label_x_position"))


def location_bin(x: int) -> int:
    """The class of one of 32 positions."""
    return x // 2


def smallnorb_azimuth(example: Example) -> int:
    """smallNORB: TFDS has already halved the file's 0, 2, ... 34."""
    return stored_label(example, name="label_azimuth")


def smallnorb_elevation(example: Example) -> int:
    """smallNORB: the stored number, 0 to 8."""
    return stored_label(example, name="label_elevation")
