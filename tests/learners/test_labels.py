from __future__ import annotations

import numpy as np
import pytest
import torch

from learners.labels import Labels, per_clip
from pipeline.errors import UsageError


def test_labels_are_counted() -> None:
    labels = Labels.checked(torch.tensor([2, 0, 1, 0, 2, 3]))
    assert labels.way == 4
    assert labels.counts.tolist() == [2, 1, 2, 1]


def test_the_averaging_matrix_makes_class_means() -> None:
    labels = Labels.checked(torch.tensor([1, 0, 1]))
    features = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0]])
    assert torch.equal(labels.averaging(features) @ features, torch.tensor([[3.0, 4], [3, 5]]))


def test_frames_of_a_clip_count_as_one() -> None:
    labels = Labels.checked(torch.tensor([1, 1, 1, 0, 0, 0]), clip=3)
    assert labels.values.tolist() == [1, 0]
    with pytest.raises(UsageError, match="whole clips of 4; got a tensor of shape"):
        per_clip(torch.zeros(6, dtype=torch.int64), 4)


def test_classes_without_a_support_image_are_named() -> None:
    with pytest.raises(UsageError, match="of 5 classes 1, 3 have none"):
        Labels.checked(torch.tensor([0, 2, 4]), 5)
    with pytest.raises(UsageError, match=r"0, 1, 2, 3, 4 and 15 more have none"):
        Labels.checked(torch.tensor([20]))


@pytest.mark.parametrize("wrong", [-1, 3, 1000])
def test_labels_outside_the_task_are_named(wrong: int) -> None:
    with pytest.raises(UsageError, match=f"support labels are 0 to 2 .* got also {wrong};"):
        Labels.checked(torch.tensor([0, 1, 2, wrong]), 3)


def test_no_images_and_labels_that_are_no_whole_numbers_are_refused() -> None:
    with pytest.raises(UsageError, match="the support set is empty"):
        Labels.checked(torch.zeros(0, dtype=torch.int64), 3)
    with pytest.raises(UsageError, match=r"type torch\.float32"):
        Labels.checked(torch.zeros(3))
    with pytest.raises(UsageError, match=r"shape \(3, 1\)"):
        Labels.checked(torch.zeros(3, 1, dtype=torch.int64))
    assert Labels.checked(torch.zeros(3, dtype=torch.uint8)).values.dtype == np.int64
