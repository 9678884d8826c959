"""The processes that work together under torchrun, one per GPU; or this process alone."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import torch
from torch import Tensor, distributed

from pipeline.errors import RunInterrupted, UsageError, errors_about, first_line
from pipeline.layout import HOST_NAME, lock_file, make_folder, remove_leftovers

LOCK_FILE: Final = ".lock"
NEEDS_LESS: Final = "a smaller --chunk, --precision bfloat16 or a smaller --image-size needs less"
"""Memory: the cure of commands that have these flags."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_KEPT: Final = 1 << 30  # bytes of a block
NEVER: Final = -1

log = logging.getLogger(__name__)


class ProcessLost(RunInterrupted):
    """Another process of the group has ended, so that none of them can go on."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process's rank and device in the group, and the collectives it takes part in."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and prints: rank 0."""
        return self.rank == 0

    def add(self, gradients: Sequence[Tensor]) -> None:
        """All-reduce gradients in place, as one flat tensor."""
        if self.size > 1:
            flat = _flat(gradients)
            with _lost_in_words():
                distributed.all_reduce(flat)
            torch._foreach_copy_(list(gradients), list(_split_like(flat, gradients)))

    def add_in_order(self, gradients: Sequence[Tensor], sums: Sequence[Tensor]) -> None:
        """Add the gradients of all ranks to `sums` in rank order.

        This gives the same bits for any number of processes, if a task's number decides its rank.
        """
        own = _flat(gradients)
        parts = [own]
        if self.size > 1:
            parts = [torch.empty_like(own) for _ in range(self.size)]
            with _lost_in_words():
                distributed.all_gather(parts, own)
        for part in parts:
            torch._foreach_add_(list(sums), list(_split_like(part, sums)))

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate the values of all ranks, in rank order; lengths may differ."""
        if self.size == 1:
            return values
        gathered: list[list[float]] = [[] for _ in range(self.size)]
        with _lost_in_words():
            distributed.all_gather_object(gathered, values.tolist())
        return torch.tensor([value for part in gathered for value in part], dtype=values.dtype)

    def least(self, values: Sequence[int]) -> list[int]:
        """The least of each value over all processes."""
        gathered = self.gather(torch.tensor(values)).view(-1, len(values))
        return [int(value) for value in gathered.amin(0)]

    def any(self, flag: bool) -> bool:  # noqa: FBT001
        """Whether the flag is set in any process."""
        if self.size == 1:
            return flag
        total = torch.tensor([float(flag)], device=self.device)
        with _lost_in_words():
            distributed.all_reduce(total)
            return bool(total.item())

    @contextmanager
    def hold(self, folder: Path) -> Iterator[None]:
        """Keep the folder, made if it is not there, to this group alone; remove what dead processes left in it.

        The system frees a lock when its process ends, however it ends.
        """
        lock = _locked_file(folder) if self.leads else None
        try:
            if self.any(self.leads and lock is None):
                raise UsageError(
                    f"{folder} is in use by {_holder(folder)}; wait until that ends, or take another folder with --out"
                )
            if self.leads:
                remove_leftovers(folder)
            yield
        finally:
            if lock is not None:
                lock.close()


@contextmanager
def join_processes(device: str) -> Iterator[ProcessGroup]:
    """Join the process group that torchrun started; a group of one without torchrun."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    own_device = choose_device(device)
    if own_device.type == "cpu":
        keep_freed_memory()
    if size == 1:
        yield ProcessGroup(0, 1, own_device)
        return
    gpu = (
        own_device if own_device.type == "cuda" else None
    )  # named, NCCL need not guess it at the first collective
    distributed.init_process_group("nccl" if gpu else "gloo", device_id=gpu)
    try:
        yield ProcessGroup(rank, size, own_device)
    finally:
        distributed.destroy_process_group()


def keep_freed_memory() -> None:
    """Let glibc keep large blocks that are freed, for the rest of this process.

    Blocks of more than 32 MB would go back to the system, which clears each page again when the next layer asks for
    such a block: more than half of the time of conv4 at 84 pixels in chunks of 40 images (docs/log.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other libraries have none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)
        mallopt(M_TRIM_THRESHOLD, NEVER)


def choose_device(text: str | torch.device) -> torch.device:
    """The device that a `--device` means: auto is a GPU where there is one; cuda is this rank's own GPU."""
    has_gpu = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if has_gpu else "cpu") if text == "auto" else text)
    except RuntimeError as error:
        raise UsageError(f"a device is cpu, cuda, cuda:1, ... or auto; got {text!r}") from error
    if device.type == "cuda" and not has_gpu:
        raise UsageError(f"the device {text} needs a GPU that PyTorch can use, and it finds none")
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
        torch.cuda.set_device(device)
    return device


def _locked_file(folder: Path) -> IO[str] | None:
    """The folder's lock file, locked until it is closed; None if another process holds it."""
    make_folder(folder)
    file = (folder / LOCK_FILE).open("a", encoding="utf-8")
    locked = lock_file(file.fileno())
    if locked is False:
        file.close()
        return None
    if locked is None:
        log.warning("%s is on a file system without locks: start nothing else that writes into it", folder)
    with errors_about(folder / LOCK_FILE):
        file.truncate(0)
        file.write(f"process {os.getpid()} of {HOST_NAME}\n")
        file.flush()
    return file


def _holder(folder: Path) -> str:
    """What the process that holds the folder wrote of itself."""
    with suppress(OSError):
        return (folder / LOCK_FILE).read_text(encoding="utf-8", errors="replace").strip() or "another process"
    return "another process"


@contextmanager
def out_of_memory_in_words(cure: str = NEEDS_LESS) -> Iterator[None]:
    """Raise UsageError, which ends with the cure, where the device's memory does not suffice."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise UsageError(f"out of memory ({first_line(error)}); {cure}") from error


@contextmanager
def _lost_in_words() -> Iterator[None]:
    """Say that a process has gone in place of the errors of sockets in which its group learns of it."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost(
            f"another process of the group has ended, and the lines above or the system's log say why ({first_line(error)}); "
            "what is saved is kept, start all of them again"
        ) from error


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def _split_like(flat: Tensor, like: Sequence[Tensor]) -> Iterator[Tensor]:
    """Split what `_flat` joined into tensors of the shapes of `like`."""
    parts = torch.split(flat, [tensor.numel() for tensor in like])
    return (part.view_as(tensor) for part, tensor in zip(parts, like, strict=True))
