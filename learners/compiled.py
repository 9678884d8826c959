"""Networks compiled by torch: the same values to rounding, in less time once the minutes of compiling are over."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor, nn

from learners.learner import StagedLearner
from pipeline.errors import UsageError

COMPILERS: Final = ("g++", "clang++")  # what torch looks for besides $CXX


def compile_networks(learner: StagedLearner) -> None:
    """Backbone and set encoder run compiled from now on; parameters and their names stay as they are.

    Each is compiled at its first use. A batch of any size uses the same code, so what comes out does not
    depend on the sizes that came before. Raises UsageError where torch cannot compile.
    """
    check_compiler(next(learner.parameters()).device)
    for network in (learner.backbone, learner.encoder):
        if network is not None:
            network.forward = Compiled(network)


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


class Compiled:
    """The forward pass of a network, for batches of any size."""

    def __init__(self, network: nn.Module) -> None:
        from torch._dynamo import maybe_mark_dynamic  # noqa: PLC0415 - slow to import

        self._mark = maybe_mark_dynamic
        self._forward = torch.compile(network.forward)

    def __call__(self, images: Tensor, *film: Sequence[Tensor]) -> Tensor:
        """What the network says of images, with FiLM if it was given."""
        self._mark(images, 0)
        vectors: Tensor = self._forward(images, *film)
        return vectors
