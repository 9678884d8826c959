"""Where the units of classes are: whole classes side by side in blocks, and few rows that are nobody's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learners.heads.class_places import class_places
from learners.labels import Labels


@pytest.mark.parametrize(
    "shots", [(1,), (1, 1, 1), (3, 3), (5, 2, 3, 1, 4, 1), (55, 1, 30, 30, 2, 20, 9, 9, 9)]
)
def test_each_class_has_rows_of_one_block_and_no_row_has_two_units(shots: tuple[int, ...]) -> None:
    labels = Labels(np.random.default_rng(0).permutation(np.repeat(np.arange(len(shots)), shots)), len(shots))
    places = class_places(labels, torch.zeros(1))
    blocks, largest = places.owners.shape
    assert largest == max(shots)
    assert len(np.unique(places.slots)) == sum(shots)
    sorted_labels = torch.from_numpy(labels.values)[places.order]
    assert (places.owners.flatten()[places.slots] == sorted_labels).all()
    assert int((places.owners >= 0).sum()) == sum(shots)
    for label in range(len(shots)):
        rows = places.slots[sorted_labels == label]
        assert int(rows[0] // largest) == int(rows[-1] // largest)
        assert (rows.diff() == 1).all()
    assert blocks <= len(shots)


def test_small_classes_share_blocks() -> None:
    sizes = (50, *(10 for _ in range(10)))
    labels = Labels(np.repeat(np.arange(11), sizes), 11)
    assert class_places(labels, torch.zeros(1)).owners.shape == (3, 50)
