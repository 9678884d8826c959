"""A set encoder with statistics of the batch meets the support set in a mixed order, as the papers' codes shuffle it."""

from __future__ import annotations

from itertools import chain

import pytest
import torch

from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import backbone
from learners.networks.set_encoder import EncoderNorm, SetEncoder
from learners.task import ChunkedPass

IMAGES, SIDE, CHUNK = 24, 32, 8


def batches(norm: EncoderNorm, clip: int = 1) -> list[list[int]]:
    """The numbers of the images of each batch that the encoder sees, while a learner adapts to sorted classes."""
    learner = SimpleCNAPs(backbone("conv4", film=True), encoder=SetEncoder(norm=norm))
    assert learner.encoder is not None
    seen: list[list[int]] = []
    learner.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:, 0, 0, 0].tolist()))
    images = torch.arange(IMAGES, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    labels = torch.arange(IMAGES) // (IMAGES // 2)
    learner.adapt(images, labels, passage=ChunkedPass(clip=clip, chunk=CHUNK))
    return seen


@pytest.mark.parametrize("clip", [1, 2])
def test_batches_of_sorted_classes_are_mixed_and_hold_each_image_once(clip: int) -> None:
    seen = batches("batch", clip)
    assert [len(batch) for batch in seen] == [CHUNK] * (IMAGES // CHUNK)
    assert sorted(chain(*seen)) == list(range(IMAGES))
    assert all(min(batch) < IMAGES // 2 <= max(batch) for batch in seen)
    assert seen == batches("batch", clip)


def test_the_frames_of_a_clip_stay_together() -> None:
    flat = list(chain(*batches("batch", 2)))
    assert all(even % 2 == 0 and odd == even + 1 for even, odd in zip(flat[::2], flat[1::2], strict=True))


@pytest.mark.parametrize("norm", ["example", "stored"])
def test_an_encoder_of_single_images_meets_them_as_they_come(norm: EncoderNorm) -> None:
    assert list(chain(*batches(norm))) == list(range(IMAGES))
