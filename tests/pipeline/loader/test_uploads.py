from __future__ import annotations

import torch

from pipeline.loader.uploads import upload
from tests.pretended_gpu import pretended_gpu


def tensors() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(-9, 9, (3, 5), generator=generator),
        torch.tensor([True, False, True]),
        torch.randn(7, 2, generator=generator).T,
        torch.randn(1, generator=generator, dtype=torch.float64),
        torch.empty(0, 4),
    ]


def test_tensors_for_the_cpu_are_the_same_ones() -> None:
    mine = tensors()
    found = upload(*mine, device=torch.device("cpu"))
    assert all(one is other for one, other in zip(found, mine, strict=True))


def test_a_gpu_gets_all_tensors_in_one_copy_that_nobody_waits_for() -> None:
    with pretended_gpu() as gpu:
        gpu.reset()
        found = upload(*tensors(), device=torch.device("cuda:0"))
        assert gpu.launches == {"host to device": 1}
        assert not gpu.synchronisations
        for one, other in zip(found, tensors(), strict=True):
            assert (one.device.type, one.dtype) == ("cuda", other.dtype)
            assert torch.equal(one.cpu(), other)
