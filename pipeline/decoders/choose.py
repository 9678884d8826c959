"""Which decoder, with how many threads."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

import torch

from pipeline.decoders.base import Decoder
from pipeline.decoders.threads import Threads
from pipeline.errors import UsageError
from pipeline.process import usable_cores
from pipeline.store.local import Store

DecoderName: TypeAlias = Literal["auto", "turbo", "dali"]


def open_decoder(
    name: DecoderName,
    store: Store,
    *,
    size: int,
    threads: int | None,
    device: str | torch.device,
    fast: bool = False,
) -> Decoder:
    """auto: DALI for a GPU where it is installed, `Threads` (turbo) elsewhere.

    Without `threads`, as many as there are cores; beside a GPU one less, for who feeds it. `fast`
    belongs to turbo, and so chooses it: DALI's quick transform gains nothing measurable.
    """
    gpu = torch.device(device).type == "cuda"
    if name not in get_args(DecoderName):
        raise UsageError(f"decoders are auto, turbo and dali, got {name!r}")
    if name == "dali" and fast:
        raise UsageError("fast decoding is turbo's; take decoder='turbo', or DALI without it")
    if threads is None:
        threads = max(1, usable_cores() - gpu)
    if name == "turbo" or (name == "auto" and (fast or not gpu or not has_dali())):
        return Threads(store, size=size, threads=threads, fast=fast)
    if not has_dali():
        raise UsageError(
            "decoder='dali' needs NVIDIA DALI, which is not installed: pip install -e '.[dali]', or "
            "take decoder='turbo'"
        )
    from pipeline.decoders.dali import Dali  # noqa: PLC0415 - optional, and slow to import

    return Dali(store, size=size, threads=threads, device=device)


def has_dali() -> bool:
    """Whether it is installed, without importing it."""
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
