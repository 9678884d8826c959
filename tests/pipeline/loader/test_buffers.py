from __future__ import annotations

import gc

import pytest
import torch

from pipeline.loader.memory import HostBuffers


def test_memory_comes_back_when_its_last_view_is_gone() -> None:
    buffers = HostBuffers(pinned=False)
    taken = buffers.take(10, 4, 4, 3)
    place = taken.data_ptr()
    view = taken[3:5].permute(0, 3, 1, 2)
    del taken
    assert buffers.free_bytes == 0
    del view
    assert buffers.free_bytes >= 480
    assert buffers.take(10, 4, 4, 3).data_ptr() == place


def test_memory_that_is_held_is_never_given_to_another() -> None:
    buffers = HostBuffers(pinned=False)
    held = [buffers.take(64, 3) for _ in range(8)]
    for number, tensor in enumerate(held):
        tensor.fill_(number)
    assert all((tensor == number).all() for number, tensor in enumerate(held))


def test_numpy_and_autograd_hold_memory_as_well() -> None:
    buffers = HostBuffers(pinned=False)
    pixels = buffers.take(8)
    array = pixels.numpy()[2:]
    del pixels
    gc.collect()
    assert buffers.free_bytes == 0
    assert array.shape == (6,)


def test_sizes_that_vary_do_not_pile_up() -> None:
    buffers = HostBuffers(pinned=False)
    largest = 0
    for size in torch.randint(1, 100_000, (500,), generator=torch.manual_seed(0)).tolist():
        two = buffers.take(size), buffers.take(size)
        largest = max(largest, size)
        del two
    assert buffers.free_bytes <= 2 * 1.125 * largest + 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_pinned_memory_is_pinned() -> None:
    assert HostBuffers(pinned=True).take(4, 4).is_pinned()
