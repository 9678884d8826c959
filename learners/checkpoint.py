"""Checkpoints: tensors and values in one safetensors file, written atomically, read without unpickling.

The values are JSON in the header, beside a checksum of everything. `flatten` turns nested state, such as
an optimiser's, into tensors and values; `unflatten` restores it bit for bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from pipeline.errors import IntegrityError, SourceMissing, UsageError, first_few
from pipeline.layout import write_atomically
from pipeline.store.files import crc32

FORMAT: Final = "lite-shards 1"
TENSOR, TUPLE, PAIRS = "$tensor", "$tuple", "$pairs"  # tags for what JSON cannot represent


def save(path: str | Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write a checkpoint completely or not at all; an older file of the name stays until then.

    values: anything that JSON can represent (see `flatten` for what it cannot).
    """
    try:
        text = json.dumps(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path}: values must be what JSON can say: {error}") from error
    copies = {name: _plain(tensor) for name, tensor in tensors.items()}
    header = {"format": FORMAT, "values": text, "crc32": str(_checksum(copies, text))}
    write_atomically(Path(path), serialise(copies, header))


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, on the CPU, and the values that `save` was given."""
    tensors, header = read_safetensors(path)
    if header.get("format") != FORMAT or "values" not in header:
        found = header.get("format", "no format at all")
        raise IntegrityError(f"{path} is no checkpoint: needed the format {FORMAT!r}, found {found}")
    text = header["values"]
    if header.get("crc32") != str(_checksum(tensors, text)):
        raise IntegrityError(f"{path} is damaged: its checksum differs; take an older checkpoint")
    values: dict[str, Any] = json.loads(text)
    return tensors, values


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file and the metadata of its header."""
    if not Path(path).is_file():
        raise SourceMissing(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise IntegrityError(
            f"{path} is not a whole safetensors file ({error}); fetch or write it again"
        ) from error


def flatten(tree: Any, prefix: str = "") -> tuple[dict[str, Tensor], Any]:
    """Turn nested dicts, lists and tuples with tensor leaves into named tensors and JSON values."""
    tensors: dict[str, Tensor] = {}

    def describe(node: Any, name: str) -> Any:
        if isinstance(node, Tensor):
            tensors[name] = node
            return {TENSOR: name}
        if isinstance(node, list | tuple):
            items = [describe(item, f"{name}.{at}") for at, item in enumerate(node)]
            return items if isinstance(node, list) else {TUPLE: items}
        if not isinstance(node, Mapping):
            return node
        pairs = [(key, describe(value, f"{name}.{key}")) for key, value in node.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {PAIRS: [list(pair) for pair in pairs]}

    return tensors, describe(tree, prefix)


def unflatten(tensors: Mapping[str, Tensor], values: Any) -> Any:
    """Restore what `flatten` was given."""
    if isinstance(values, list):
        return [unflatten(tensors, item) for item in values]
    if not isinstance(values, dict):
        return values
    if TENSOR in values:
        name = values[TENSOR]
        if name not in tensors:
            raise IntegrityError(f"the checkpoint has no tensor {name!r}; take an older checkpoint")
        return tensors[name]
    if TUPLE in values:
        return tuple(unflatten(tensors, item) for item in values[TUPLE])
    if PAIRS in values:
        return {key: unflatten(tensors, value) for key, value in values[PAIRS]}
    return {key: unflatten(tensors, value) for key, value in values.items()}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Set all parameters and buffers of a module; names and shapes must match exactly.

    source: where the tensors are from, for error messages.
    """
    needed = module.state_dict()
    problems = []
    missing, extra = [key for key in needed if key not in tensors], [*(tensors.keys() - needed)]
    if missing:
        problems.append(f"it lacks {first_few(missing)}")
    if extra:
        problems.append(f"it has {first_few(sorted(extra))}, which the network has not")
    for name in needed.keys() & tensors.keys():
        if needed[name].shape != tensors[name].shape:
            wanted, found = (list(of[name].shape) for of in (needed, tensors))
            problems.append(f"{name} has the shape {found} and not {wanted}")
    if problems:
        kind, listed = type(module).__name__, first_few(problems, "; ")
        raise IntegrityError(f"{source} does not fit this network ({kind}): {listed}")
    module.load_state_dict(dict(tensors))


def load_optimizer(optimizer: torch.optim.Optimizer, state: Any, source: object) -> None:
    """Set an optimiser's state; its tensors get the memory format of the parameters."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        moments = {key: dict(value) for key, value in state["state"].items()}
        for number, entry in moments.items():
            for name, value in entry.items():
                if isinstance(value, Tensor) and value.dim():
                    entry[name] = torch.empty_like(parameters[number], dtype=value.dtype).copy_(
                        _same_shape(value, parameters[number])
                    )
        optimizer.load_state_dict({**state, "state": moments})
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        groups = [len(group["params"]) for group in optimizer.param_groups]
        raise IntegrityError(
            f"{source} is not the state of this optimiser, which has groups of {groups} parameters: {error!r}"
        ) from error


def _same_shape(value: Tensor, parameter: Tensor) -> Tensor:
    if value.shape != parameter.shape:
        raise ValueError(f"a parameter of {[*parameter.shape]} has a state of {[*value.shape]}")
    return value


def _plain(tensor: Tensor) -> Tensor:
    """A contiguous copy on the CPU that shares no memory with others."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def _checksum(tensors: Mapping[str, Tensor], text: str) -> int:
    value = crc32(text.encode())
    for name in sorted(tensors):
        value = crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), crc32(name.encode(), value))
    return int(value)
