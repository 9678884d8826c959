"""The tensors of a published checkpoint, taken by name; whatever does not fit becomes one error."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from learners.checkpoint import misfit
from pipeline.errors import IntegrityError, first_few


class OfficialTensors:
    """Tensors by their official names. `take` never fails: `check` tells everything at the end."""

    def __init__(self, tensors: Mapping[str, Tensor], file: Path) -> None:
        self.file = file
        self._tensors = tensors
        self._taken: set[str] = set()
        self._missing: list[str] = []
        self._problems: list[str] = []

    def take(self, name: str, like: Tensor) -> Tensor:
        """The tensor of a name, as a tensor `like` another; zeros where there is none that fits."""
        self._taken.add(name)
        tensor = self._tensors.get(name)
        if tensor is None:
            self._missing.append(name)
        elif problem := misfit(tensor, like):
            self._problems.append(f"{name} {problem}")
        elif not tensor.isfinite().all():
            self._problems.append(f"{name} holds NaN or infinity")
        else:
            return tensor.detach().to(like.dtype, copy=True)
        return torch.zeros_like(like)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self) -> Sequence[str]:
        """All names in the file."""
        return [*self._tensors]

    def check(self, unused: re.Pattern[str], what: str) -> list[str]:
        """Raise one error for all that did not fit; return the names that were left out.

        unused: the names that the network has no use for. what: the learner, for the error.
        """
        left = sorted(self._tensors.keys() - self._taken)
        extra = [name for name in left if not unused.fullmatch(name)]
        problems = list(self._problems)
        if extra:
            problems.insert(0, f"it has {first_few(extra)}, which that has not")
        if self._missing:
            problems.insert(0, f"it lacks {first_few(self._missing)}")
        if problems:
            raise IntegrityError(
                f"{self.file} does not fit {what}: {first_few(problems, '; ')}; fetch the file again, or name "
                "what it is of with --learner, --backbone and --image-size"
            )
        return left
