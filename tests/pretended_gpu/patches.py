"""The names of torch that a pretended GPU stands behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest.mock import patch

import torch
import torch._dynamo  # reads the names below when it is first imported, and must not read the pretended ones
from torch import Tensor

from tests.pretended_gpu.streams import DEVICE, DeviceEvent, DeviceStream
from tests.pretended_gpu.tensors import MOVES, DeviceTensor, allocated, download, upload

if TYPE_CHECKING:
    from tests.pretended_gpu.gpu import PretendedGpu

UNFILLED: Final = ("empty", "empty_strided", "empty_like")
FILLED: Final = (
    *("zeros", "ones", "full", "arange", "linspace", "eye", "rand", "randn", "randint", "randperm"),
    *("zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
)
FROM_HOST: Final = ("tensor", "as_tensor", "asarray")


@contextmanager
def patched_torch(gpu: PretendedGpu) -> Iterator[None]:
    """Let torch find the device."""
    swapping = torch.__future__.get_swap_module_params_on_conversion()
    with ExitStack() as stack:
        for name in (*UNFILLED, *FILLED, *FROM_HOST):
            stack.enter_context(patch.object(torch, name, _factory(gpu, name)))
        methods = TensorMoves(gpu).methods
        stack.enter_context(
            patch.dict(MOVES, {getattr(Tensor, name): method for name, method in methods.items()})
        )
        for name, method in methods.items():
            stack.enter_context(patch.object(Tensor, name, method))
        for name, value in _cuda(gpu).items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        stack.enter_context(patch("torch.accelerator.current_stream", lambda *_, **__: gpu.clock.current))
        stack.enter_context(patch("torch.autocast", _autocast(torch.autocast)))
        for name in ("is_autocast_enabled", "get_autocast_dtype"):
            stack.enter_context(patch.object(torch, name, _of_cpu(getattr(torch, name))))
        stack.enter_context(
            patch(
                "torch.optim.optimizer._foreach_supported_types", [Tensor, torch.nn.Parameter, DeviceTensor]
            )
        )
        torch.__future__.set_swap_module_params_on_conversion(True)  # parameters stay the same objects
        stack.callback(torch.__future__.set_swap_module_params_on_conversion, swapping)
        yield


def _is_device(device: object) -> bool:
    """Whether a device is the pretended one."""
    if isinstance(device, str):
        device = torch.device(device)
    return (
        device == 0 if isinstance(device, int) else isinstance(device, torch.device) and device.type == "cuda"
    )


def _factory(gpu: PretendedGpu, name: str) -> Callable[..., Tensor]:
    """A function such as torch.zeros, for both devices."""
    original: Callable[..., Tensor] = getattr(torch, name)

    def create(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        like = args[0] if args and isinstance(args[0], DeviceTensor) else None
        if like is not None and (device is None or _is_device(device)):
            return original(*args, **kwargs)
        if _is_device(device):
            return _created(gpu, name, lambda **changed: original(*args, **{**kwargs, **changed}), kwargs)
        pinned = kwargs.pop("pin_memory", False)
        if device is not None:
            kwargs["device"] = device
        tensor = original(*(args if like is None else (like.stored, *args[1:])), **kwargs)
        if pinned:
            gpu.pin(tensor)
        return tensor

    return create


def _created(gpu: PretendedGpu, name: str, original: Callable[..., Tensor], kwargs: dict[str, Any]) -> Tensor:
    """A new tensor of the device."""
    values = original(requires_grad=False) if "requires_grad" in kwargs else original()
    if name in FROM_HOST:
        return upload(gpu, values).requires_grad_(kwargs.get("requires_grad", False))
    target = allocated(gpu, values)
    if name not in UNFILLED and values.numel():
        into = target.stored
        gpu.launches[name] += 1
        gpu.clock.current.submit(lambda: into.copy_(values))
    return target.requires_grad_(kwargs.get("requires_grad", False))


class TensorMoves:
    """Methods of tensors that move them from device to device."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self._gpu = gpu
        self._to: Callable[..., Tensor] = Tensor.to
        self._is_pinned = Tensor.is_pinned

    @property
    def methods(self) -> dict[str, Callable[..., Any]]:
        """By name; functions, so that tensors bind them."""
        moves = self
        return {
            "to": lambda *args, **kwargs: moves.to(*args, **kwargs),  # noqa: PLW0108 - a method would not bind
            "cpu": lambda tensor, **kwargs: moves.to(tensor, "cpu", **kwargs),
            "cuda": lambda tensor, *_, **kwargs: moves.to(tensor, DEVICE, **kwargs),
            "pin_memory": lambda tensor, *_: moves.pin(tensor),
            "is_pinned": lambda tensor, *_: moves.is_pinned(tensor),
        }

    def to(self, tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """`tensor.to(...)`, with whatever it takes."""
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        copied = {name: kwargs.pop(name) for name in ("copy",) if name in kwargs}
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*args, **kwargs)
        layouts = {} if layout is None else {"memory_format": layout}
        kind, here = (
            "" if device is None else device.type,
            "cuda" if isinstance(tensor, DeviceTensor) else "cpu",
        )
        if kind not in {"", "cpu", "cuda"}:
            values = tensor.stored if isinstance(tensor, DeviceTensor) else tensor
            return self._to(values, device, dtype or tensor.dtype, **layouts)
        if kind in {"", here}:
            return self._to(tensor, dtype or tensor.dtype, **copied, **layouts)
        crossed: Tensor = Crossing.apply(tensor, self._gpu, non_blocking)
        return self._to(crossed, dtype or tensor.dtype, **layouts)

    def pin(self, tensor: Tensor) -> Tensor:
        """A copy in pinned memory."""
        pinned = tensor.clone()
        self._gpu.pin(pinned)
        return pinned

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in pinned memory."""
        return not isinstance(tensor, DeviceTensor) and (
            self._gpu.is_pinned(tensor) or self._is_pinned(tensor)
        )


class Crossing(torch.autograd.Function):
    """A tensor on the other device, and its gradient back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gpu: PretendedGpu, *non_blocking: bool) -> Tensor:
        ctx.gpu = gpu
        if isinstance(tensor, DeviceTensor):
            return download(gpu, tensor, non_blocking=any(non_blocking))
        return upload(gpu, tensor, non_blocking=any(non_blocking))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return Crossing.apply(gradient, ctx.gpu), None, None


def _autocast(original: type[torch.autocast]) -> type[torch.autocast]:
    """Autocast that casts the device's tensors, which autograd takes for the CPU's."""

    class DeviceAutocast(original):  # type: ignore[valid-type, misc]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return DeviceAutocast


def _of_cpu(original: Callable[[str], object]) -> Callable[..., object]:
    """A question about autocast, answered for the CPU where it is asked for the GPU."""
    return lambda kind="cuda": original("cpu" if kind == "cuda" else kind)


def _cuda(gpu: PretendedGpu) -> dict[str, Any]:
    """Functions and classes of torch.cuda."""
    clock, pool = gpu.clock, gpu.pool

    def synchronize(device: object = None) -> None:
        gpu.synchronise()
        for stream in clock.streams:
            clock.wait(stream)

    def nothing(*_: object, **__: object) -> None:
        pass

    return {
        "Stream": DeviceStream,
        "Event": DeviceEvent,
        "stream": clock.using,
        "current_stream": lambda *_, **__: clock.current,
        "default_stream": lambda *_, **__: clock.default,
        "synchronize": synchronize,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_current_stream_capturing": lambda: False,
        "is_bf16_supported": lambda *_, **__: True,
        "_lazy_init": nothing,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": lambda *_, **__: nullcontext(),
        "set_device": nothing,
        "get_device_name": lambda *_, **__: "a pretended GPU",
        "get_device_capability": lambda *_, **__: (9, 0),
        "get_device_properties": lambda *_, **__: SimpleNamespace(
            name="a pretended GPU", total_memory=pool.limit, major=9, minor=0
        ),
        "mem_get_info": lambda *_, **__: (pool.limit - pool.allocated, pool.limit),
        "memory_allocated": lambda *_, **__: pool.allocated,
        "max_memory_allocated": lambda *_, **__: pool.peak,
        "memory_reserved": lambda *_, **__: pool.allocated,
        "max_memory_reserved": lambda *_, **__: pool.peak,
        "reset_peak_memory_stats": lambda *_, **__: pool.reset_peak(),
        "empty_cache": nothing,
        "manual_seed_all": nothing,
    }
