"""Computes in a precision as an NVIDIA GPU does, on a CPU by emulation: inputs of few bits, products summed in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from learners.networks.arithmetic import (
    Precision,
    convolutions_use_tf32,
    network_precision,
    products_use_tf32,
)

OPS: Final = torch.ops.aten
CONVOLUTION_INPUTS: Final[dict[Any, tuple[int, ...]]] = {  # operation: the places of its factors
    OPS.convolution: (0, 1),
    OPS.convolution_backward: (0, 1, 2),
}
PRODUCT_INPUTS: Final[dict[Any, tuple[int, ...]]] = {
    OPS.mm: (0, 1),
    OPS.bmm: (0, 1),
    OPS.addmm: (1, 2),
    OPS.baddbmm: (1, 2),
}
DROPPED_BITS: Final = 23 - 10  # of float32's mantissa; TF32 has ten


@contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Compute in a precision in this thread; on a CPU emulated."""
    emulated = nullcontext() if device.type == "cuda" else EmulatedTensorCores()  # type: ignore[no-untyped-call]
    with network_precision(precision), emulated:
        yield


class EmulatedTensorCores(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Rounds on a CPU what a GPU's tensor cores round, forward and backward, in the thread that enters this context.

    Factors in float32 become TF32 where torch's switches let a GPU do so: not in heads. Products in half precision are
    summed in float32 and rounded once, as on a GPU; the CPU's own passes in float16 take 5 to 16 times as long. What is
    not emulated is which kernel cuDNN takes: it may leave some, such as depthwise convolutions, in float32.
    """

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        packet, values, named = func.overloadpacket, list(args), dict(kwargs or {})
        places = CONVOLUTION_INPUTS.get(packet) or PRODUCT_INPUTS.get(packet) or ()
        dtype = values[places[0]].dtype if places else None
        if dtype in (torch.float16, torch.bfloat16):
            exact = func(*(_cast(value, torch.float32) for value in values), **named)
            return tree_map(lambda tensor: _cast(tensor, dtype), exact)
        if dtype == torch.float32 and _uses_tf32(packet):
            for place in places:
                values[place] = round_to_tf32(values[place])
        return func(*values, **named)


def round_to_tf32(tensor: Tensor) -> Tensor:
    """The nearest numbers with a mantissa of ten bits; ties go to the even one."""
    bits = tensor.view(torch.int32)
    last = (bits >> DROPPED_BITS).bitwise_and_(1)
    rounded = last.add_(bits).add_((1 << (DROPPED_BITS - 1)) - 1)
    return rounded.bitwise_and_(-1 << DROPPED_BITS).view(torch.float32)


def _uses_tf32(packet: Any) -> bool:
    return convolutions_use_tf32() if packet in CONVOLUTION_INPUTS else products_use_tf32()


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
