"""Small tensors that the host makes (labels, indices, weights) go to the device together."""

from __future__ import annotations

from typing import Final

import torch

UPLOAD_ALIGNMENT: Final = 16  # bytes: a multiple of the size of every number


def upload(*tensors: torch.Tensor, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The tensors on a device; on the CPU they are the same ones.

    A GPU gets them in one copy out of pinned memory, for which nobody waits. For each copy out of other memory the
    host waits until the GPU has done all that it was asked for.
    """
    if device.type != "cuda":
        return tuple(tensor.to(device) for tensor in tensors)
    ends = [0]
    for tensor in tensors:
        ends.append(ends[-1] + -(-tensor.nbytes // UPLOAD_ALIGNMENT) * UPLOAD_ALIGNMENT)
    packed = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=True)
    for begin, tensor in zip(ends, tensors, strict=False):
        _part(packed, begin, tensor).copy_(tensor)
    moved = packed.to(device, non_blocking=True)
    return tuple(_part(moved, begin, tensor) for begin, tensor in zip(ends, tensors, strict=False))


def _part(packed: torch.Tensor, begin: int, like: torch.Tensor) -> torch.Tensor:
    """The bytes from `begin` on, as a tensor of the type and shape of `like`."""
    return packed[begin : begin + like.nbytes].view(like.dtype).view(like.shape)
