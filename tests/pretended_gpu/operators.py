"""What each operator of ATen costs: whether it launches a kernel, and whether the host waits for it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
from torch import Tensor

UNLAUNCHED: Final = {
    *("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided"),
    *("_linalg_check_errors", "record_stream", "_has_compatible_shallow_copy_type"),
}
WAITING: Final = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal"),
    *("nonzero", "masked_select", "_unique", "_unique2", "unique_dim", "unique_consecutive", "bincount"),
    *("_linalg_check_errors", "_linalg_eigh", "linalg_eig", "_linalg_eigvals", "_linalg_svd", "linalg_lstsq"),
}
CHECKED_ON_REQUEST: Final = {"linalg_cholesky_ex", "linalg_inv_ex", "_linalg_solve_ex", "linalg_lu_factor_ex"}
INDEXED: Final = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
TAKES_HOST_TENSORS: Final = {*INDEXED, "copy_", "_to_copy"}


@dataclass(frozen=True, slots=True)
class OperatorRule:
    """What is known of an operator from its name and its schema."""

    name: str
    view: bool
    launched: bool
    written: tuple[int | str, ...]
    """The arguments that it writes, by place or name."""
    returns: tuple[int | str | None, ...]
    """For each result the argument that it is, or None."""


@cache
def operator_rule(func: Any) -> OperatorRule:
    """The rule of an operator."""
    schema = func._schema
    name = schema.name.removeprefix("aten::")
    returned = [r.alias_info for r in schema.returns]
    view = bool(returned) and all(info is not None and not info.is_write for info in returned)
    written = {
        argument.name if argument.kwarg_only else place: argument.alias_info.before_set
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    }
    returns = tuple(
        next(
            (
                place
                for place, names in written.items()
                if info and info.is_write and names == info.before_set
            ),
            None,
        )
        for info in returned
    )
    return OperatorRule(name, view, not view and name not in UNLAUNCHED, tuple(written), returns)


def waits(rule: OperatorRule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the host waits for the device's answer, or copies an index to it."""
    if rule.name in WAITING:
        return True
    if rule.name in CHECKED_ON_REQUEST:
        return bool(kwargs.get("check_errors"))
    if rule.name in INDEXED:
        return any(_is_slow_index(index) for index in args[1] if index is not None)
    return rule.name == "repeat_interleave" and kwargs.get("output_size") is None


def _is_slow_index(index: Tensor) -> bool:
    """Whether an index is a mask, whose elements are counted first, or lies on the host."""
    return index.dtype in {torch.bool, torch.uint8} or index.device.type == "cpu"
