"""Networks run through `torch.compile`: equal values up to rounding, faster after minutes of compiling."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor, nn

from learners.learner import MetaLearner
from pipeline.errors import UsageError

COMPILERS: Final = ("g++", "clang++")  # what torch looks for besides $CXX


def compile_networks(learner: MetaLearner) -> None:
    """Make a learner's networks run compiled; parameters and their names stay as they are.

    Each is compiled at its first use. Batches of all sizes use the same code, so outputs do not depend on the
    sizes that came before. Raises UsageError where torch cannot compile.
    """
    check_compiler(next(learner.parameters()).device)
    for network in learner.networks:
        network.forward = CompiledForward(network)
        network.pads_chunks = True  # type: ignore[assignment]  # a flag that `learners.task.pads_chunks` reads


def check_compiler(device: torch.device) -> None:
    """Raise UsageError unless torch can compile for a device here."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            raise UsageError("--compile on a GPU needs triton: pip install triton, or leave it out")
    elif not any(map(shutil.which, filter(None, (os.environ.get("CXX"), *COMPILERS)))):
        raise UsageError(
            f"--compile needs a C++ compiler ({', '.join(COMPILERS)}, or what CXX names), and there is "
            "none on the PATH; install one, or leave it out"
        )


class CompiledForward:
    """The forward pass of a network, for batches of any size."""

    def __init__(self, network: nn.Module) -> None:
        from torch._dynamo import maybe_mark_dynamic  # noqa: PLC0415 - slow to import

        self._mark = maybe_mark_dynamic
        self._forward = torch.compile(network.forward)

    def __call__(self, images: Tensor, *film: Sequence[Tensor]) -> Tensor:
        """Run the network on images, with FiLM if given."""
        self._mark(images, 0)
        vectors: Tensor = self._forward(images, *film)
        return vectors
