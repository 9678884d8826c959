"""Choose a decoder and its number of threads."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal, TypeAlias, get_args

import torch

from pipeline.decoders.base import ChunkDecoder
from pipeline.decoders.threads import ThreadedDecoder
from pipeline.errors import UsageError, check_choice
from pipeline.process import usable_cores
from pipeline.store.local import SampleStore

DecoderName: TypeAlias = Literal["auto", "turbo", "dali"]


def open_decoder(
    name: DecoderName,
    store: SampleStore,
    *,
    size: int,
    threads: int | None,
    device: str | torch.device,
    fast: bool = False,
) -> ChunkDecoder:
    """Open a decoder; auto is turbo, on every machine: DALI's pixels on a GPU differ by some grey levels.

    threads: default is one for each core of this rank, less one beside a GPU, for the thread that feeds it.
    fast: turbo only: DALI's quick transform gains nothing measurable.
    """
    gpu = torch.device(device).type == "cuda"
    check_choice(name, get_args(DecoderName), "decoder")
    if name == "dali" and fast:
        raise UsageError("fast decoding is turbo's; take decoder='turbo', or DALI without it")
    if threads is None:
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's processes share a machine's cores
        threads = max(1, usable_cores() // ranks - gpu)
    if resolved_decoder(name) == "turbo":
        return ThreadedDecoder(store, size=size, threads=threads, fast=fast)
    if not has_dali():
        raise UsageError(
            "decoder='dali' needs NVIDIA DALI, which is not installed: pip install -e '.[dali]', or "
            "take decoder='turbo'"
        )
    from pipeline.decoders.dali import DaliDecoder  # noqa: PLC0415 - optional, slow to import

    return DaliDecoder(store, size=size, threads=threads, device=device)


def resolved_decoder(name: DecoderName) -> Literal["turbo", "dali"]:
    """The decoder that a name stands for; what a result should say of itself."""
    return "dali" if name == "dali" else "turbo"


def has_dali() -> bool:
    """Whether NVIDIA DALI is installed, without importing it."""
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None
