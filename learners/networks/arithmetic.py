"""How networks compute: the precision of convolutions and matrix products, and whether a GPU repeats its bits.

Both are switches of torch for the whole process: a command sets them where it begins, before other threads, and they
are put back where it ends. Heads and generators have all of float32 whatever the precision
(`learners.heads.base.full_precision`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, Literal, TypeAlias

import torch

from pipeline.errors import UsageError

Precision: TypeAlias = Literal["tf32", "float32", "float16", "bfloat16"]
PRECISION_HELP: Final = (
    "of the networks; heads always have float32. tf32 rounds the inputs of convolutions and matrix products to ten "
    "bits on an NVIDIA GPU and is float32 on a CPU"
)
DETERMINISTIC_HELP: Final = (
    "the same bits each time on one kind of GPU, slower; without it only the last digits differ there at first. A CPU "
    "repeats its bits anyway"
)
FIRST_LOSS_SCALE: Final = 2.0**12  # of float16; nothing underflows then, and nothing overflows yet (RESULTS)
CUBLAS_WORKSPACE: Final = "CUBLAS_WORKSPACE_CONFIG"
REPEATING_WORKSPACES: Final = (":4096:8", ":16:8")  # the values with which cuBLAS repeats its bits
NO_DETERMINISTIC_FORM: Final = re.compile(r"(\S+) does not have a deterministic implementation")


def autocast_dtype(precision: Precision) -> torch.dtype | None:
    """The dtype of autocast; None where all values are float32."""
    return getattr(torch, precision) if precision in ("float16", "bfloat16") else None


def known_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision in which networks compute on a device: there is no TF32 on a CPU."""
    return "float32" if precision == "tf32" and device.type != "cuda" else precision


@contextmanager
def network_arithmetic(
    precision: Precision, device: torch.device, *, deterministic: bool = False
) -> Iterator[None]:
    """Set how networks compute on a device, within this context."""
    with network_precision(precision), repeated_bits(device, wanted=deterministic):
        yield


@contextmanager
def network_precision(precision: Precision) -> Iterator[None]:
    """Let NVIDIA GPUs use TF32 for `tf32` and for nothing else; torch's own default uses it for convolutions.

    torch has two interfaces to these switches. Set by the older one they agree; set by the newer one
    (`fp32_precision`), reads of the older one raise, and torch.compile reads it.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions_use_tf32(), products_use_tf32()
    cudnn.allow_tf32 = matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def convolutions_use_tf32() -> bool:
    """Whether a GPU may now round the inputs of convolutions in float32."""
    switches: Any = torch.backends.cudnn
    return bool(switches.conv.fp32_precision == "tf32")


def products_use_tf32() -> bool:
    """Whether a GPU may now round the inputs of matrix products in float32; never within a head."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


@contextmanager
def repeated_bits(device: torch.device, *, wanted: bool) -> Iterator[None]:
    """Where `wanted`, let a GPU compute the same bits each time; on a CPU nothing changes.

    Raises UsageError, which names it, at an operation that has no such form.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    workspace = os.environ.setdefault(CUBLAS_WORKSPACE, REPEATING_WORKSPACES[0])  # read at cuBLAS's first use
    if workspace not in REPEATING_WORKSPACES:
        raise UsageError(
            f"--deterministic needs {CUBLAS_WORKSPACE} to be {' or '.join(REPEATING_WORKSPACES)}, and it is {workspace!r}; "
            "unset it"
        )
    cudnn, filling = torch.backends.cudnn, _filling_switch()
    before = cudnn.deterministic, cudnn.benchmark, filling.fill_uninitialized_memory
    was_on = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.deterministic, cudnn.benchmark = True, False
    filling.fill_uninitialized_memory = False  # else every new tensor is filled first
    torch.use_deterministic_algorithms(mode=True)
    try:
        with _naming_operations():
            yield
    finally:
        torch.use_deterministic_algorithms(was_on, warn_only=only_warned)
        cudnn.deterministic, cudnn.benchmark, filling.fill_uninitialized_memory = before


def _filling_switch() -> Any:
    return torch.utils.deterministic


@contextmanager
def _naming_operations() -> Iterator[None]:
    """Turn torch's error at an operation without a deterministic form into one that names it."""
    try:
        yield
    except RuntimeError as error:
        if (found := NO_DETERMINISTIC_FORM.search(str(error))) is None:
            raise
        raise UsageError(
            f"--deterministic: {found[1]} has no form on a GPU that repeats its bits; take another network, the CPU, or "
            "leave the flag out"
        ) from error
