"""Remainders of chunks are padded to few shapes, and values and gradients are those of the images alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from learners.task import ChunkedPass
from tests.learners.tasks import backbone, pixels


def shapes(network: nn.Module) -> list[int]:
    """The number of images of each pass from now on."""
    counts: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: counts.append(len(inputs[0])))
    return counts


def padding(network: nn.Module) -> nn.Module:
    """The network, padded as a compiled one is."""
    network.pads_chunks = True  # type: ignore[assignment]
    return network


def gradient(network: nn.Module, passage: ChunkedPass, images: Tensor) -> tuple[Tensor, Tensor]:
    """The vectors of images in one pass, and a gradient through them."""
    vectors = passage.run(network, images)
    weights = torch.arange(vectors.numel(), dtype=vectors.dtype).view_as(vectors)
    torch.autograd.backward(vectors, weights)
    found = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad()
    return vectors.detach(), found


@pytest.mark.parametrize("clip", [1, 2])
@pytest.mark.parametrize("units", [1, 2, 3, 5, 7, 8])
def test_padded_values_and_gradients_are_those_of_the_images_alone(clip: int, units: int) -> None:
    images, passage = pixels([0] * units * clip, seed=1), ChunkedPass(clip=clip, chunk=8 * clip)
    plain, padded = backbone(), padding(backbone())
    counts = shapes(padded)
    for one, other in zip(gradient(plain, passage, images), gradient(padded, passage, images), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    assert len(passage.run(padded, images)) == units
    assert set(counts) == {next(size for size in (1, 2, 4, 8) if size >= units) * clip}


def test_passes_with_a_graph_and_without_one_have_chunks_and_shapes_of_their_own() -> None:
    images, passage = pixels([0] * 23, seed=1), ChunkedPass(chunk=4, forward_chunk=16)
    network = padding(backbone())
    counts = shapes(network)
    passage.whole(network, images)
    assert counts == [16, 8]
    counts.clear()
    for part in passage.parts(images, torch.arange(7)):
        passage.run(network, part)
    assert counts == [4, 4]


def test_nothing_is_padded_on_a_cpu() -> None:
    network = backbone()
    counts = shapes(network)
    ChunkedPass(chunk=8).whole(network, pixels([0] * 11, seed=1))
    assert counts == [8, 3]


def test_a_network_whose_images_affect_each_other_is_not_padded() -> None:
    network = padding(backbone())
    network.norm = "batch"  # type: ignore[assignment]
    counts = shapes(network)
    ChunkedPass(chunk=8).whole(network, pixels([0] * 11, seed=1))
    assert counts == [8, 3]
