"""Tensors of the pretended device, and how operators run on them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._pytree import tree_leaves, tree_map

from tests.pretended_gpu.layouts import result_layout
from tests.pretended_gpu.memory import DeviceBlock
from tests.pretended_gpu.operators import TAKES_HOST_TENSORS, OperatorRule, operator_rule, waits
from tests.pretended_gpu.streams import AUTOCAST, DEVICE, DeviceStream

if TYPE_CHECKING:
    from tests.pretended_gpu.gpu import PretendedGpu

GPUS: list[PretendedGpu] = []  # those that are there; the last one is used
MOVES: dict[Any, Callable[..., Any]] = {}
"""What stands in for methods such as Tensor.cpu where the method itself was kept by somebody."""


class DeviceTensor(Tensor):
    """A tensor that says that it is on cuda:0. Its values are in `stored`, on the CPU."""

    stored: Tensor
    block: DeviceBlock

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False

    @staticmethod
    def __new__(cls, values: Tensor, block: DeviceBlock) -> DeviceTensor:
        tensor: DeviceTensor = Tensor._make_wrapper_subclass(
            cls, values.size(), strides=values.stride(), storage_offset=values.storage_offset(),
            dtype=values.dtype, device=values.device,
        )  # fmt: skip
        tensor.stored, tensor.block = values, block
        return tensor

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run_operator(GPUS[-1], func, args, kwargs or {})

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():  # operators arrive below autograd instead
            return MOVES.get(func, func)(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Tensor = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied._is_param = True
        memo[id(self)] = copied
        return copied

    def record_stream(self, stream: DeviceStream) -> None:  # type: ignore[override]
        """Keep the memory until what the stream has been asked for is over."""
        if stream is not self.block.stream:
            self.block.users.add(stream)

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(
            f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
            "memory first."
        )

    def __array__(self, dtype: object = None) -> NoReturn:
        self.numpy()
        raise AssertionError

    def tolist(self) -> Any:
        return self.detach().cpu().tolist()

    def data_ptr(self) -> int:
        return self.stored.data_ptr()

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        return f"DeviceTensor({tuple(self.shape)}, {self.dtype})"


def run_operator(gpu: PretendedGpu, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operator on the stream of this thread, now or when its time comes."""
    rule = operator_rule(func)
    if rule.name == "copy_":
        return _copy(gpu, *args, **kwargs)
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    if rule.name not in TAKES_HOST_TENSORS:
        _refuse_mixture(rule, tensors, args)
    first = next(tensor for tensor in tensors if isinstance(tensor, DeviceTensor))
    if rule.view:
        return tree_map(lambda part: _wrapped(part, first.block), func(*_inner(args), **_inner(kwargs)))
    if torch.Tag.inplace_view in func.tags:  # such as squeeze_
        first.stored = first.stored.detach()  # operators that wait in a queue have the one before
        func(*_inner(args), **_inner(kwargs))
        with no_dispatch():
            return func(*args, **kwargs)
    if waits(rule, args, kwargs):
        gpu.synchronise()
        result = _run_now(gpu, rule, func, args, kwargs)
    elif not gpu.clock.lag:
        result = _run_now(gpu, rule, func, args, kwargs)
    else:
        result = _run_later(gpu, rule, func, args, kwargs)
    written = [_argument(place, args, kwargs) for place in rule.written]
    involved = tree_leaves((result, written, tensors))
    if rule.launched and any(isinstance(tensor, Tensor) and tensor.numel() for tensor in involved):
        gpu.launches[rule.name] += 1
    _check_shapes(written)
    return result


def upload(gpu: PretendedGpu, host: Tensor, *, non_blocking: bool = False) -> DeviceTensor:
    """Copy to the device; the host waits unless the memory is pinned and it need not."""
    target = allocated(gpu, host)
    _write(gpu, target, host, non_blocking=non_blocking)
    return target


def download(gpu: PretendedGpu, tensor: DeviceTensor, *, non_blocking: bool = False) -> Tensor:
    """Copy to the host; torch takes pinned memory if the host need not wait."""
    host = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
    if non_blocking:
        gpu.pin(host)
    _read(gpu, host, tensor, non_blocking=non_blocking)
    return host


def allocated(gpu: PretendedGpu, like: Tensor) -> DeviceTensor:
    """Device memory of the layout of a tensor, whatever was in it."""
    dense = torch.empty_like(like, device="meta")
    block = gpu.pool.take(dense.numel() * dense.element_size(), gpu.clock.current)
    assert block.memory is not None
    memory = block.memory[: dense.numel() * dense.element_size()].view(dense.dtype)
    return DeviceTensor(memory.as_strided(dense.size(), dense.stride()), block)


def _run_now(gpu: PretendedGpu, rule: OperatorRule, func: Any, args: Any, kwargs: Any) -> Any:
    gpu.clock.wait(gpu.clock.current)
    with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
        result = func(*_inner(args), **_inner(kwargs))
    return _results(rule, result, args, kwargs, lambda part: _owned(gpu, part))


def _run_later(gpu: PretendedGpu, rule: OperatorRule, func: Any, args: Any, kwargs: Any) -> Any:
    """Queue an operator; memory of new tensors is taken at once."""
    inner_args, inner_kwargs = _inner(args), _inner(kwargs)
    if None not in rule.returns:
        gpu.clock.current.submit(lambda: func(*inner_args, **inner_kwargs))
        nothing = (None,) * len(rule.returns)
        return _results(rule, nothing if len(nothing) > 1 else None, args, kwargs, lambda part: part)
    try:
        layout = result_layout(func, inner_args, inner_kwargs)
    except (RuntimeError, IndexError):  # it does not take zeros
        return _run_now(gpu, rule, func, args, kwargs)
    result = tree_map(lambda part: allocated(gpu, part) if isinstance(part, Tensor) else part, layout)
    targets = [part.stored if isinstance(part, DeviceTensor) else None for part in tree_leaves(result)]

    def run() -> None:
        parts = tree_leaves(func(*inner_args, **inner_kwargs))
        for target, part in zip(targets, parts, strict=True):
            if target is not None:
                target.copy_(part)

    if rule.launched:  # not empty_like
        gpu.clock.current.submit(run)
    return _results(rule, result, args, kwargs, lambda part: part)


def _results(rule: OperatorRule, result: Any, args: Any, kwargs: Any, wrap: Callable[[Any], Any]) -> Any:
    """New results wrapped, and the arguments themselves where an operator returns them."""
    several = len(rule.returns) > 1
    parts = list(result) if several else [result] if rule.returns else []
    back = [
        tree_map(wrap, part) if place is None else _argument(place, args, kwargs)
        for place, part in zip(rule.returns, parts, strict=True)
    ]
    return tuple(back) if several else back[0] if back else None


def _argument(place: int | str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if isinstance(place, str):
        return kwargs.get(place)
    return args[place] if place < len(args) else None


def _copy(gpu: PretendedGpu, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - ATen's signature
    """`target.copy_(source)`, within the device or to or from it."""
    if not isinstance(source, DeviceTensor):
        assert isinstance(target, DeviceTensor)
        _write(gpu, target, source, non_blocking=non_blocking)
    elif not isinstance(target, DeviceTensor):
        _read(gpu, target, source, non_blocking=non_blocking)
    elif target.numel():
        into, read = target.stored, source.stored
        gpu.launches["copy_"] += 1
        gpu.clock.current.submit(lambda: into.copy_(read))
    return target


def _write(gpu: PretendedGpu, target: DeviceTensor, host: Tensor, *, non_blocking: bool) -> None:
    into, asynchronous = target.stored, non_blocking and gpu.is_pinned(host)
    read = _same_address(host) if asynchronous else host.detach()
    if target.numel():
        gpu.launches["host to device"] += 1
        gpu.clock.current.submit(lambda: into.copy_(read))
    if not asynchronous:
        gpu.synchronise()
        gpu.clock.wait(gpu.clock.current)


def _read(gpu: PretendedGpu, host: Tensor, source: DeviceTensor, *, non_blocking: bool) -> None:
    into, read = host.detach(), source.stored
    if source.numel():
        gpu.launches["device to host"] += 1
        gpu.clock.current.submit(lambda: into.copy_(read))
    if not (non_blocking and gpu.is_pinned(host)):
        gpu.synchronise()
        gpu.clock.wait(gpu.clock.current)


def _same_address(host: Tensor) -> Tensor:
    """Pinned memory, without the tensor that holds it: a copy under way keeps nobody from using it again."""
    storage = host.untyped_storage()
    if not storage.nbytes():
        return host.detach()
    memory = (ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr())
    flat = torch.frombuffer(memory, dtype=host.dtype)
    return flat.as_strided(host.size(), host.stride(), host.storage_offset())


def _refuse_mixture(rule: OperatorRule, tensors: Iterable[Tensor], args: tuple[Any, ...]) -> None:
    """Numbers may come from the host, arrays may not."""
    if any(not isinstance(tensor, DeviceTensor) and tensor.dim() for tensor in tensors) or (
        rule.written and isinstance(args[0], Tensor) and not isinstance(args[0], DeviceTensor)
    ):
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
            f"(when checking arguments of {rule.name})"
        )


def _check_shapes(written: list[Any]) -> None:
    for tensor in tree_leaves(written):
        if isinstance(tensor, DeviceTensor) and tensor.shape != tensor.stored.shape:
            raise NotImplementedError(
                "the pretended GPU knows no operators that change a tensor's shape in place"
            )


def _owned(gpu: PretendedGpu, part: Any) -> Any:
    """A result of the CPU's as a tensor of the device."""
    if not isinstance(part, Tensor):
        return part
    size = part.untyped_storage().nbytes()
    if gpu.clock.lag:
        tensor = allocated(gpu, part)
        tensor.stored.copy_(part)
        return tensor
    return DeviceTensor(part, gpu.pool.count(size, gpu.clock.current))


def _wrapped(part: Any, block: DeviceBlock) -> Any:
    return DeviceTensor(part, block) if isinstance(part, Tensor) else part


def _inner(values: Any) -> Any:
    return tree_map(_inner_value, values)


def _inner_value(value: Any) -> Any:
    if isinstance(value, DeviceTensor):
        return value.stored
    return torch.device("cpu") if value == DEVICE else value
