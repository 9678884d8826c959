"""The pretended GPU keeps its word: a CPU's values, an error where devices mix, and every wait and launch counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.pretended_gpu import pretended_gpu
from tests.pretended_gpu.streams import DeviceEvent, DeviceStream

GPU = torch.device("cuda", 0)
HOST = torch.arange(12.0).view(3, 4) / 7
WAITS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda a: a.sum().item(),
    "bool": lambda a: bool((a > 0).all()),
    "float": lambda a: float(a[0, 0]),
    "index": lambda a: [1, 2][a.long()[0, 0]],
    "cpu": lambda a: a.cpu(),
    "Tensor.cpu": Tensor.cpu,
    "tolist": lambda a: a.tolist(),
    "to device": lambda a: torch.ones(3).to(a.device),
    "tensor": lambda a: torch.tensor([1.0, 2.0], device=a.device),
    "into host": lambda a: torch.empty(3, 4).copy_(a),
    "from host": lambda a: a.copy_(torch.ones(3, 4)),
    "nonzero": lambda a: a.nonzero(),
    "mask": lambda a: a[a > 1],
    "host index": lambda a: a[torch.tensor([1, 2])],
    "masked_select": lambda a: torch.masked_select(a, a > 1),
    "eigh": lambda a: torch.linalg.eigh(a @ a.T),
    "cholesky": lambda a: torch.linalg.cholesky(torch.eye(3, device=a.device)),
    "equal": lambda a: torch.equal(a, a),
    "synchronize": lambda _: torch.cuda.synchronize(),
    "event": lambda _: torch.cuda.current_stream().record_event().synchronize(),
}
GOES_ON: dict[str, tuple[int, Callable[[Tensor], object]]] = {
    "shape": (0, lambda a: (a.shape, a.device, a.dtype, len(a), a.is_cuda)),
    "view": (0, lambda a: a.view(-1)[2:].reshape(5, 2).T),
    "empty": (0, lambda _: torch.empty(3, device=GPU)),
    "nothing to do": (0, lambda a: a[:0] + 1),
    "add": (1, lambda a: a + 1),
    "in place": (1, lambda a: a.mul_(2)),
    "zeros": (1, lambda _: torch.zeros(3, device=GPU)),
    "foreach": (1, lambda a: torch._foreach_add_([a, a], 1.0)),
    "product": (1, lambda a: a @ a.T),
    "device index": (3, lambda a: a[torch.arange(2, device=GPU)].sum()),
    "cholesky_ex": (2, lambda _: torch.linalg.cholesky_ex(torch.eye(3, device=GPU))),
    "pinned": (1, lambda _: torch.ones(3).pin_memory().to(GPU, non_blocking=True)),
    "to pinned": (1, lambda a: a.to("cpu", non_blocking=True)),
}


@pytest.mark.parametrize("name", WAITS)
def test_what_makes_the_host_wait_is_counted_with_its_line(name: str) -> None:
    with pretended_gpu() as gpu:
        tensor = HOST.to(GPU)
        gpu.reset()
        WAITS[name](tensor)
        assert gpu.synchronisations.total() == 1
        assert {place.split(":")[0] for place in gpu.synchronisations} == {
            "tests/pretended_gpu/test_pretended_gpu.py"
        }


@pytest.mark.parametrize("name", GOES_ON)
def test_what_the_host_need_not_wait_for_is_only_launched(name: str) -> None:
    launches, run = GOES_ON[name]
    with pretended_gpu() as gpu:
        tensor = HOST.to(GPU)
        gpu.reset()
        run(tensor)
        assert gpu.synchronisations.total() == 0
        assert gpu.launches.total() == launches


@pytest.mark.parametrize(
    "mixed",
    [
        lambda a: a + HOST,
        lambda a: HOST @ a.T,
        lambda a: torch.cat([a, HOST]),
        lambda a: HOST.clone().add_(a),
        lambda a: torch.zeros(()).add_(a.sum()),
        nn.Linear(4, 2),
    ],
)
def test_devices_do_not_mix(mixed: Callable[[Tensor], Any]) -> None:
    with pretended_gpu():
        on_gpu = HOST.to(GPU)
        with pytest.raises(RuntimeError, match=r"at least two devices, cuda:0 and cpu!"):
            mixed(on_gpu)
        with pytest.raises(TypeError, match=r"can't convert cuda:0 device type tensor to numpy"):
            on_gpu.numpy()
        assert torch.equal((on_gpu * torch.tensor(2.0)).cpu(), HOST * 2)  # a number may come from the host


@pytest.mark.parametrize("lag", [0, 20])
def test_steps_of_training_have_the_cpus_bits(lag: int) -> None:
    def trained(device: str) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Flatten(), nn.Linear(144, 3))
        images, labels = torch.randn(9, 3, 8, 8), torch.arange(9) % 3
        before = list(net.parameters())
        net.to(device)
        assert all(one is other for one, other in zip(net.parameters(), before, strict=True))
        optimizer = torch.optim.Adam(net.parameters(), foreach=True)
        for _ in range(3):
            loss = nn.functional.cross_entropy(net(images.to(device)), labels.to(device))
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        return [value.cpu() for value in net.state_dict().values()]

    with pretended_gpu(lag=lag):
        needed, found = trained("cpu"), trained("cuda")
    assert all(torch.equal(one, other) for one, other in zip(needed, found, strict=True))


def test_gradients_cross_between_devices() -> None:
    with pretended_gpu():
        source = torch.ones(3, requires_grad=True)
        torch.autograd.backward((source.to(GPU) * 2).cpu().sum())
        assert source.grad is not None
        assert source.grad.device.type == "cpu"
        assert source.grad.tolist() == [2, 2, 2]


def test_autocast_casts() -> None:
    with pretended_gpu(), torch.autocast("cuda", dtype=torch.bfloat16):
        assert (HOST.to(GPU) @ HOST.T.to(GPU)).dtype == torch.bfloat16
        assert torch.is_autocast_enabled("cuda")
        assert torch.get_autocast_dtype("cuda") == torch.bfloat16


def test_memory_is_counted_and_runs_out() -> None:
    with pretended_gpu(memory=4096) as gpu:
        small = torch.zeros(256, device=GPU)
        assert torch.cuda.memory_allocated() == 1024
        larger = [torch.zeros(512, device=GPU)]
        view = larger[0][5:]
        larger.clear()
        assert torch.cuda.memory_allocated() == 3072  # the view holds all of it
        del view
        assert torch.cuda.memory_allocated() == 1024
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            torch.zeros(1024, device=GPU)
        assert torch.cuda.max_memory_allocated() == 3072
        gpu.reset()
        assert torch.cuda.max_memory_allocated() == small.nbytes


def test_streams_run_on_their_own_and_wait_for_events() -> None:
    with pretended_gpu(lag=30) as gpu:
        other = DeviceStream()
        values = torch.zeros((), device=GPU)
        begin = DeviceEvent(enable_timing=True)
        with torch.cuda.stream(other):  # type: ignore[arg-type]
            begin.record()
            for _ in range(50):
                values += 1
            done = DeviceEvent(enable_timing=True)
            done.record()
        assert not done.query()
        torch.cuda.current_stream().wait_event(done)  # type: ignore[arg-type]
        assert float(values + 0) == 50
        assert done.query()
        assert 50 <= begin.elapsed_time(done) <= gpu.clock.now


def test_torch_is_as_before_afterwards() -> None:
    before = (torch.zeros, Tensor.to, torch.cuda.is_available, torch.autocast)
    with pretended_gpu():
        assert torch.cuda.is_available()
    assert before == (torch.zeros, Tensor.to, torch.cuda.is_available, torch.autocast)
