"""The shapes of operators' results, known before the operators run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map

from tests.pretended_gpu.streams import AUTOCAST

LAYOUTS: dict[Any, Any] = {}
"""By operator and arguments."""


def result_layout(func: Any, args: Any, kwargs: Any) -> Any:
    """The shapes, strides and types of an operator's results, found with zeros: torch's meta device has others."""
    leaves, structure = tree_flatten((args, kwargs))
    key = (func, structure, *((x.shape, x.stride(), x.dtype) if isinstance(x, Tensor) else x for x in leaves))
    if key not in LAYOUTS:
        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            zeros = tree_map(lambda x: torch.zeros_like(x) if isinstance(x, Tensor) else x, (args, kwargs))
            result = func(*zeros[0], **zeros[1])
        LAYOUTS[key] = tree_map(_without_values, result)
    return LAYOUTS[key]


def _without_values(part: Any) -> Any:
    if isinstance(part, Tensor):
        return torch.empty_strided(part.size(), part.stride(), dtype=part.dtype, device="meta")
    return part
