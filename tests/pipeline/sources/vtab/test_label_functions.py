"""Each task's labels against the benchmark's own definitions, through records as its builder writes them."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import pytest

from pipeline.records import Item
from pipeline.sources.vtab.source import VtabSource
from pipeline.sources.vtab.tasks import VTAB_FAMILY, VTAB_TASKS, VtabTask, parse_slices
from tests.pipeline.sources.vtab.tfds_fixtures import Feature, example, write_prepared

FEWEST: Final = 50
CLEVR: Final = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0)
KITTI: Final = (-100.0, 8.0, 20.0, 999.0)
CAR, VAN, TRUCK, PEDESTRIAN = 0, 1, 2, 3
KINDS: Final = 8  # of objects in KITTI
CLASSES: Final = {  # of the tasks whose label is stored as it is
    "caltech101": 102, "cifar100": 100, "flowers102": 102, "pets": 37, "sun397": 397, "svhn": 10,
    "eurosat": 10, "resisc45": 45, "camelyon": 2, "retinopathy": 5, "dmlab": 6,
}  # fmt: skip


class Case(NamedTuple):
    """What an example holds, and the class that the benchmark makes of it."""

    features: dict[str, Feature]
    expected: int


Cases: TypeAlias = Iterator[Case]


def above(thresholds: tuple[float, ...], depth: float) -> int:
    """The largest index whose threshold is less than the depth."""
    return bisect_left(thresholds, depth) - 1


def depths(thresholds: tuple[float, ...], low: float, high: float) -> list[float]:
    """Each threshold, the floats next to it, and others, all as float32 holds them."""
    edges = [np.float32(t) for t in thresholds if low < t < high]
    near = [np.nextafter(edge, np.float32(to)) for edge in edges for to in (-math.inf, math.inf)]
    others = np.random.default_rng(1).uniform(low, high, 40).astype(np.float32)
    return [float(depth) for depth in [*edges, *near, *others]]


def stored(classes: int) -> Cases:
    for i in range(max(classes, FEWEST)):
        label = 11 * i % classes  # 11 divides none of their numbers
        yield Case({"label": [label], "coarse_label": [i % 3], "species": [i % 2]}, label)


def clevr_count() -> Cases:
    for i in range(64):
        count = 3 + i % 8
        coords = [float(c) for c in range(3 * count)]
        yield Case({"objects/size": [0] * count, "objects/pixel_coords": coords}, count - 3)


def clevr_distance() -> Cases:
    rng = np.random.default_rng(2)
    for i, nearest in enumerate([*depths(CLEVR, 0, 100), *depths(CLEVR, 7, 11)]):
        count = 3 + i % 8
        scene = rng.uniform(0, 7, (count, 3)).astype(np.float32)  # x and y are less than any depth
        scene[:, 2] = np.float32(nearest) + rng.uniform(0, 20, count)
        scene[i % count, 2] = nearest
        features: dict[str, Feature] = {
            "objects/size": [0] * count, "objects/pixel_coords": scene.ravel().tolist(),
        }  # fmt: skip
        yield Case(features, above(CLEVR, nearest))


def kitti_distance() -> Cases:
    for i, nearest in enumerate([*depths(KITTI, -2, 90), *depths(KITTI, 5, 25)]):
        vehicles = [(i % PEDESTRIAN, nearest), ((i + 1) % PEDESTRIAN, nearest + 30)]
        others = [(PEDESTRIAN + i % (KINDS - PEDESTRIAN), -50.0), (PEDESTRIAN, 1.0)]
        found = [*others, *vehicles]
        yield kitti_case(found[i % 4 :] + found[: i % 4], above(KITTI, nearest))
    for i in range(10):  # no vehicle: as if one were 1,000 m away
        kinds = range(PEDESTRIAN, PEDESTRIAN + i % 6)
        yield kitti_case([(kind, 2.0 * kind) for kind in kinds], above(KITTI, 1000))


def kitti_case(found: list[tuple[int, float]], expected: int) -> Case:
    location = [value for _, depth in found for value in (-200.0, 1.5, depth)]
    features: dict[str, Feature] = {
        "objects/type": [kind for kind, _ in found], "objects/location": location,
    }  # fmt: skip
    return Case(features, expected)


def dsprites(feature: str, values: int, width: Fraction) -> Cases:
    for i in range(2 * values):
        value = i % values
        features: dict[str, Feature] = {
            "label_orientation": [39 - i % 40], "label_x_position": [31 - i % 32],
            "label_y_position": [i % 32], "label_scale": [i % 6], "label_shape": [i % 3],
        }  # fmt: skip
        yield Case({**features, feature: [value]}, math.floor(value / width))


def smallnorb(feature: str, values: int) -> Cases:
    for i in range(4 * values + FEWEST):
        features: dict[str, Feature] = {
            "label_azimuth": [17 - i % 18], "label_elevation": [8 - i % 9],
            "label_lighting": [i % 6], "label_category": [i % 5],
        }  # fmt: skip
        yield Case({**features, feature: [i % values]}, i % values)


DERIVED: Final[dict[str, Callable[[], Cases]]] = {
    "clevr_count": clevr_count,
    "clevr_distance": clevr_distance,
    "dsprites_orientation": lambda: dsprites("label_orientation", 40, Fraction(5, 2)),
    "dsprites_location": lambda: dsprites("label_x_position", 32, Fraction(2)),
    "smallnorb_azimuth": lambda: smallnorb("label_azimuth", 18),
    "smallnorb_elevation": lambda: smallnorb("label_elevation", 9),
    "kitti_distance": kitti_distance,
}


def cases(name: str) -> list[Case]:
    return list(DERIVED[name]() if name in DERIVED else stored(CLASSES[name]))


def source(root: Path, task: VtabTask, found: list[Case]) -> VtabSource:
    """A prepared folder of the task's builder with these records, in two shards."""
    records = [example({"image": [b""], **case.features}) for case in found]
    version = f"{task.versions[0]}0.0"
    half = len(records) // 2
    folder = write_prepared(
        root, {"train": [records[:half], records[half:]]}, name=task.builder, version=version
    )
    if task.config:
        info = folder / "dataset_info.json"
        info.write_text(json.dumps({**json.loads(info.read_text()), "configName": task.config}))
        (folder.parent / task.config).mkdir()
        folder.rename(folder.parent / task.config / version)
    whole = replace(task, sizes={"train": len(found)}, train=parse_slices("train"), validation=(), test=())
    return VtabSource(name=task.name, root=root, task=whole, protocol="vtab")


@pytest.mark.parametrize("name", VTAB_FAMILY)
def test_the_label_of_a_task_is_the_benchmarks(name: str, tmp_path: Path) -> None:
    found = cases(name)
    assert len(found) >= FEWEST
    items = list(source(tmp_path, VTAB_TASKS[name], found).survey().items)
    assert all(isinstance(item, Item) for item in items)
    labels = [item.class_id for item in items if isinstance(item, Item)]
    assert labels == [case.expected for case in found]
    assert set(labels) == set(range(VTAB_TASKS[name].classes))
