"""VTAB's label functions: what a stored example says becomes a class number.

The arithmetic is that of google-research/task_adaptation. Depths are stored as float32 and the
thresholds are exact in it, so that comparing them here decides as TensorFlow does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from pipeline.sources.tfrecords.framing import Values

Example: TypeAlias = Mapping[str, Values]

CLEVR_DEPTHS: Final = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI_DEPTHS: Final = (-100.0, 8.0, 20.0, 999.0)  # metres
NO_VEHICLE: Final = 1000.0  # metres
VEHICLES: Final = 3  # KITTI's first object types: car, van, truck
FEWEST_OBJECTS: Final = 3  # CLEVR's scenes have 3 to 10


def stored(example: Example, *, name: str = "label") -> int:
    """A stored class number as it is."""
    return int(example[name][0])


def clevr_count(example: Example) -> int:
    """3 to 10 objects in the scene become 0 to 7."""
    return len(example["objects/size"]) - FEWEST_OBJECTS


def clevr_distance(example: Example) -> int:
    """Bin of the nearest object's depth; pixel_coords holds x, y, depth of one object after another."""
    return depth_bin([float(z) for z in example["objects/pixel_coords"][2::3]], CLEVR_DEPTHS)


def kitti_distance(example: Example) -> int:
    """Bin of the nearest vehicle's depth; location holds x, y, z of one object after another."""
    types = [int(kind) for kind in example["objects/type"]]
    depths = [float(z) for z in example["objects/location"][2::3]]
    vehicles = [z for z, kind in zip(depths, types, strict=True) if kind < VEHICLES]
    return depth_bin([*vehicles, NO_VEHICLE], KITTI_DEPTHS)


def depth_bin(depths: Sequence[float], thresholds: Sequence[float]) -> int:
    """The last threshold that lies below the smallest depth; -1 if none does."""
    nearest = min(depths)
    return max((i for i, threshold in enumerate(thresholds) if threshold < nearest), default=-1)


def orientation(example: Example) -> int:
    """dSprites: 40 angles become 16 classes, of three and two angles by turns."""
    return orientation_bin(stored(example, name="label_orientation"))


def orientation_bin(angle: int) -> int:
    return int(angle // 2.5)


def location(example: Example) -> int:
    """dSprites: 32 positions along x become 16 classes."""
    return location_bin(stored(example, name="label_x_position"))


def location_bin(x: int) -> int:
    return x // 2


def azimuth(example: Example) -> int:
    """smallNORB: TFDS has halved the file's 0, 2, ... 34."""
    return stored(example, name="label_azimuth")


def elevation(example: Example) -> int:
    return stored(example, name="label_elevation")
