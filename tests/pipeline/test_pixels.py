from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.pixels import IMAGENET, SYMMETRIC, PixelScaling, draw_flips, flip, normalise, rotate_quarters


@pytest.fixture
def images() -> torch.Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def test_normalised_pixels_have_the_mean_taken_off_and_are_scaled(images: torch.Tensor) -> None:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in IMAGENET)
    expected = (images.double() / 255 - mean.double()) / std.double()
    assert torch.allclose(normalise(images).double(), expected, atol=1e-6)


def test_symmetric_pixels_reach_from_minus_one_to_one() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    found = normalise(ends, SYMMETRIC)
    assert torch.allclose(found[0], torch.tensor(-1.0))
    assert torch.allclose(found[1], torch.tensor(1.0))


def test_the_scaling_of_a_network_in_float64_has_the_bits_of_float32(images: torch.Tensor) -> None:
    scaling = PixelScaling(IMAGENET)
    assert torch.equal(scaling(images), normalise(images))
    assert torch.equal(scaling.double()(images), normalise(images))
    assert scaling.state_dict() == {}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_memory_format_stays_and_the_type_is_what_was_asked_for(
    images: torch.Tensor, dtype: torch.dtype
) -> None:
    found = normalise(images, dtype=dtype)
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_flipping_mirrors_the_chosen_images_alone(images: torch.Tensor) -> None:
    chosen = torch.tensor([True, False, False, True, False])
    found = flip(images, chosen)
    assert torch.equal(found[chosen], images[chosen].flip(3))
    assert torch.equal(found[~chosen], images[~chosen])


def test_a_coin_belongs_to_a_position_and_not_to_its_chunk() -> None:
    whole = draw_flips(3, 17, range(100))
    parts = [draw_flips(3, 17, part) for part in (range(40), range(40, 100))]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(draw_flips(3, 17, torch.tensor([9, 4])), whole[[9, 4]])
    assert 30 < whole.sum() < 70
    assert not torch.equal(draw_flips(3, 18, range(100)), whole)
    assert len(draw_flips(3, 17, [])) == 0


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_quarter_turns_leave_images_channels_last(layout: torch.memory_format) -> None:
    images = torch.arange(5 * 3 * 4 * 4, dtype=torch.uint8).view(5, 3, 4, 4).contiguous(memory_format=layout)
    turns = torch.tensor([3, 0, 2, 1, 0])
    found = rotate_quarters(images, turns)
    for image, quarters, turned in zip(images, turns.tolist(), found, strict=True):
        assert torch.equal(turned, torch.rot90(image, quarters, (1, 2)))
    assert found.is_contiguous(memory_format=torch.channels_last)
