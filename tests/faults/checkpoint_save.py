"""Saving a checkpoint as a command: tensors of a size, filled with a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from learners import checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Arguments: the file, the number of elements, and the number that fills them."""
    path, elements, value = argv or ()
    torch.set_num_threads(1)
    checkpoint.save(Path(path), {"a": torch.full((int(elements),), float(value))}, {"value": int(value)})
    return 0
