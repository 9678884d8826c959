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
from pipeline.layout import remove_leftovers, write_atomically
from pipeline.settings import parse_json
from pipeline.store.files import crc32

FORMAT: Final = "lite-shards 1"
HEADER_LIMIT: Final = 8 << 20  # bytes; 100,000 tensors have less, and a parsed header takes 20 times as much
NESTING_LIMIT: Final = 64  # levels of the values; an optimiser's state has five
WEIGHT_DTYPES: Final = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
COUNT_DTYPES: Final = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})
LENGTH_BYTES: Final = 8  # at a file's start: the header's length
HEADER_ALIGNMENT: Final = 8  # bytes, so that tensors are aligned in a mapped file
TENSOR, TUPLE, PAIRS = "$tensor", "$tuple", "$pairs"  # tags for what JSON cannot represent


def save(path: str | Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write a checkpoint completely or not at all; an older file of the name stays until then.

    values: anything that JSON can represent (see `flatten` for what it cannot).
    """
    remove_leftovers(Path(path).parent)
    write_atomically(Path(path), pack(tensors, values, path))


def pack(tensors: Mapping[str, Tensor], values: Mapping[str, Any], target: object) -> bytes:
    """The bytes of the file that `save` writes; `target` is its name for errors."""
    try:
        text = json.dumps(values)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{target}: values must be what JSON can say: {error}") from error
    copies = {name: _plain(tensor) for name, tensor in tensors.items()}
    header = {"format": FORMAT, "values": text, "crc32": str(_checksum(copies, text))}
    return _in_fixed_order(serialise(copies, header))


def _in_fixed_order(data: bytes) -> bytes:
    """The same file with sorted metadata: safetensors puts them in another order each time, equal files should be equal."""
    end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % HEADER_ALIGNMENT)
    return b"".join((len(text).to_bytes(LENGTH_BYTES, "little"), text, memoryview(data)[end:]))


def load(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors, on the CPU, and the values that `save` was given."""
    tensors, header = read_safetensors(path)
    if header.get("format") != FORMAT or "values" not in header:
        found = header.get("format", "no format at all")
        raise IntegrityError(f"{path} is no checkpoint: needed the format {FORMAT!r}, found {found}")
    text = header["values"]
    if header.get("crc32") != str(_checksum(tensors, text)):
        raise IntegrityError(f"{path} is damaged: its checksum differs; take an older checkpoint")
    values = parse_json(text.encode(), path)
    if not isinstance(values, dict):
        raise IntegrityError(
            f"{path} is damaged: its values are {type(values).__name__}, not names with values"
        )
    return tensors, values


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file and the metadata of its header."""
    if not Path(path).is_file():
        raise SourceMissing(f"{path}: there is no such file")
    _check_header(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise IntegrityError(
            f"{path} is not a whole safetensors file ({error}); fetch or write it again"
        ) from error


def _check_header(path: Path) -> None:
    """Refuse a header that takes too much memory, before it is parsed."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if size > min(HEADER_LIMIT, path.stat().st_size):
        raise IntegrityError(
            f"{path} is not a whole safetensors file: its header says that it has {size:,} bytes, and "
            f"{HEADER_LIMIT:,} are the limit; fetch or write it again"
        )


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


def unflatten(tensors: Mapping[str, Tensor], values: Any, source: object = "the checkpoint") -> Any:
    """Restore what `flatten` was given; `source` is the file's name for errors."""
    try:
        return _restore(tensors, values, NESTING_LIMIT)
    except (TypeError, ValueError) as error:
        raise IntegrityError(f"{source}: the structure of its values is damaged: {error}") from error
    except KeyError as error:
        raise IntegrityError(f"{source} has no tensor {error}; take an older checkpoint") from error


def _restore(tensors: Mapping[str, Tensor], node: Any, levels: int) -> Any:
    """Restore one node and what is below it, at most so many levels deep."""
    if levels == 0:
        raise ValueError(f"they are nested more than {NESTING_LIMIT} levels deep")
    if isinstance(node, list):
        return [_restore(tensors, item, levels - 1) for item in node]
    if not isinstance(node, dict):
        return node
    if TENSOR in node:
        return tensors[node[TENSOR]]
    if TUPLE in node:
        return tuple(_restore(tensors, item, levels - 1) for item in node[TUPLE])
    pairs = node[PAIRS] if PAIRS in node else node.items()
    return {key: _restore(tensors, value, levels - 1) for key, value in pairs}


def load_module(module: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Set all parameters and buffers of a module; names, shapes and kinds of numbers must match.

    source: where the tensors are from, for error messages.
    """
    check_fits(module, tensors, source)
    module.load_state_dict(dict(tensors))


def check_fits(module: nn.Module, tensors: Mapping[str, Tensor], source: object) -> None:
    """Refuse tensors that `load_module` cannot set; the module may be on torch's meta device."""
    needed = module.state_dict()
    problems = []
    missing, extra = [key for key in needed if key not in tensors], [*(tensors.keys() - needed)]
    if missing:
        problems.append(f"it lacks {first_few(missing)}")
    if extra:
        problems.append(f"it has {first_few(sorted(map(str, extra)))}, which the network has not")
    both = needed.keys() & tensors.keys()
    problems += [f"{name} {wrong}" for name in both if (wrong := misfit(tensors[name], needed[name]))]
    if problems:
        kind, listed = type(module).__name__, first_few(problems, "; ")
        raise IntegrityError(f"{source} does not fit this network ({kind}): {listed}")


def misfit(found: object, needed: Tensor) -> str:
    """How a tensor differs from one that it should set, as a predicate; "" if it fits."""
    if not isinstance(found, Tensor) or found.layout != torch.strided:
        return f"is {getattr(found, 'layout', type(found).__name__)} and no dense tensor"
    if found.shape != needed.shape:
        return f"has the shape {[*found.shape]} and not {[*needed.shape]}"
    if found.dtype not in (WEIGHT_DTYPES if needed.is_floating_point() else COUNT_DTYPES):
        return f"holds {found.dtype} and not {needed.dtype}"
    return ""


def load_optimizer(optimizer: torch.optim.Optimizer, state: Any, source: object) -> None:
    """Set an optimiser's state; its tensors get the memory format of the parameters.

    Whether one kernel updates all parameters is the device's affair and not the file's, which may be of another one.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    try:
        moments = {key: dict(value) for key, value in state["state"].items()}
        for number, entry in moments.items():
            for name, value in entry.items():
                if isinstance(value, Tensor) and value.dim():
                    entry[name] = torch.empty_like(parameters[number], dtype=value.dtype).copy_(
                        _same_shape(value, parameters[number])
                    )
        rules = [{**group, "fused": optimizer.defaults["fused"]} for group in state["param_groups"]]
        optimizer.load_state_dict({"state": moments, "param_groups": rules})
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RuntimeError) as error:
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
