"""The processes that train together: one per GPU, started by torchrun, or this one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed

from pipeline.errors import UsageError


@dataclass(frozen=True, slots=True)
class Team:
    """This process's place among them."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this one writes files and lines."""
        return self.rank == 0

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Every process's gradients become the sum of all; one message for all tensors."""
        if self.size > 1:
            flat = _flat(gradients)
            distributed.all_reduce(flat)
            for gradient, total in zip(gradients, _cut(flat, gradients), strict=True):
                gradient.copy_(total)

    def add_in_order(self, gradients: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
        """Add each process's gradients to `sums`, in the order of ranks: the same bits for any number of
        processes if a task's number decides its rank.
        """
        own = _flat(gradients)
        parts = [own]
        if self.size > 1:
            parts = [torch.empty_like(own) for _ in range(self.size)]
            distributed.all_gather(parts, own)
        for part in parts:
            for total, gradient in zip(sums, _cut(part, sums), strict=True):
                total.add_(gradient)

    def gather(self, values: Tensor) -> Tensor:
        """Everybody's values, joined in the order of ranks; they may differ in length by any number."""
        if self.size == 1:
            return values
        found: list[list[float]] = [[] for _ in range(self.size)]
        distributed.all_gather_object(found, values.tolist())
        return torch.tensor([value for part in found for value in part], dtype=values.dtype)

    def any(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether any process says so."""
        if self.size == 1:
            return flag
        told = torch.tensor([float(flag)], device=self.device)
        distributed.all_reduce(told)
        return bool(told.item())


@contextmanager
def team(device: str) -> Iterator[Team]:
    """Join the others, if torchrun started several."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    place = _place(device)
    if size == 1:
        yield Team(0, 1, place)
        return
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield Team(rank, size, place)
    finally:
        distributed.destroy_process_group()


def _place(device: str) -> torch.device:
    there = torch.cuda.is_available()
    if device == "auto":
        device = "cuda" if there else "cpu"
    if device.startswith("cuda") and not there:
        raise UsageError(f"--device {device} needs a GPU that PyTorch can use, and it finds none")
    if device == "cuda":
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(place)
        return place
    return torch.device(device)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _cut(flat: Tensor, like: Sequence[Tensor]) -> Iterator[Tensor]:
    """The inverse of `_flat`, given tensors of the shapes."""
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return (part.view_as(tensor) for part, tensor in zip(parts, like, strict=True))
