from __future__ import annotations

import numpy as np
import pytest

from pipeline.sources.vtab import labels


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        *((7.5, 0), (8.0, 0), (8.2, 1), (8.5, 1), (8.51, 2)),
        *((9.3, 3), (9.5, 3), (10.0, 4), (10.1, 5), (13.0, 5)),
    ],
)
def test_clevr_distance_is_the_bin_of_the_nearest_object(depth: float, expected: int) -> None:
    others = [99.0, 99.0, depth + 20]
    example = {"objects/pixel_coords": [*others, 1.0, 2.0, float(np.float32(depth)), *others]}
    assert labels.clevr_distance(example) == expected


@pytest.mark.parametrize(
    ("depth", "expected"), [(-3.0, 0), (4.2, 0), (8.0, 0), (8.1, 1), (20.0, 1), (20.5, 2), (75.0, 2)]
)
def test_kitti_distance_is_the_bin_of_the_nearest_vehicle(depth: float, expected: int) -> None:
    pedestrian, truck, car = [0.0, 0.0, -50.0], [0.0, 0.0, depth], [0.0, 0.0, 76.0]
    location = [*pedestrian, *truck, *car]
    example: labels.Example = {"objects/type": [3, 2, 0], "objects/location": location}
    assert labels.kitti_distance(example) == expected


@pytest.mark.parametrize("types", [[], [3], [4, 5, 6, 7]])
def test_kitti_without_a_vehicle_is_the_last_class(types: list[int]) -> None:
    example: labels.Example = {"objects/type": types, "objects/location": [1.0] * 3 * len(types)}
    assert labels.kitti_distance(example) == 3


def test_depths_outside_the_bins_are_no_class() -> None:
    assert labels.depth_bin([0.0, 5.0], labels.CLEVR_DEPTHS) == -1
    assert labels.depth_bin([-100.0], labels.KITTI_DEPTHS) == -1


def test_clevr_count_starts_at_three_objects() -> None:
    counts = [labels.clevr_count({"objects/size": [0] * n}) for n in range(3, 11)]
    assert counts == list(range(8))


def test_forty_orientations_make_sixteen_classes_of_three_and_two() -> None:
    bins = [labels.dsprites_orientation({"label_orientation": [angle]}) for angle in range(40)]
    assert bins[:10] == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3]
    assert bins[-2:] == [15, 15]
    assert np.bincount(bins).tolist() == [3, 2] * 8
    assert bins == np.floor(np.arange(40, dtype=np.float32) / np.float32(2.5)).tolist()


def test_thirty_two_positions_make_sixteen_classes() -> None:
    bins = [labels.dsprites_location({"label_x_position": [x]}) for x in range(32)]
    assert bins == [x // 2 for x in range(32)]
