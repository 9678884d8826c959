"""Backbone weights in files: read without unpickling, known names mapped, everything else refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from safetensors.torch import save as serialise
from torch import Tensor, nn

from learners.checkpoint import load_module, read_safetensors
from learners.networks.base import Backbone
from learners.networks.inert_pickle import StoredTensor
from learners.networks.torch_file import TorchFile
from pipeline.errors import LONGEST_LINE, IntegrityError, SourceMissing, first_line
from pipeline.layout import write_atomically
from pipeline.pixels import PixelNormalisation, is_usable

WRAPPERS: Final = ("state_dict", "model", "model_state_dict")  # keys under which trainers store weights
GPUS: Final = "module."  # before every name where several GPUs trained
HEADER_AT: Final = 8  # bytes before the JSON header of a safetensors file
COUNTER: Final = "num_batches_tracked"  # older files lack it; nothing here reads it
LUKEMELAS: Final = "_conv_stem.weight"  # the EfficientNet that the papers used
LUKEMELAS_TOP: Final = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
LUKEMELAS_BLOCK: Final = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
LUKEMELAS_FIRST: Final = {**LUKEMELAS_BLOCK, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def load_weights(net: nn.Module, path: str | Path, heads: Sequence[str]) -> PixelNormalisation | None:
    """Load a network's weights from safetensors, or from a file of torch's of which nothing is run.

    heads: names of classifier layers, whose weights are skipped. Returns the normalisation that the weights
    expect, if the file says.
    """
    tensors, header = read_weight_file(Path(path))
    names = usual_names(tensors, net)
    tensors = {names[name]: tensor for name, tensor in tensors.items()}
    needed = net.state_dict()
    fitted = {
        name: tensor
        for name, tensor in tensors.items()
        if name in needed or not name.startswith(tuple(f"{head}." for head in heads))
    }
    counters = {name for name in needed.keys() | fitted.keys() if name.endswith(COUNTER)}
    fitted = {name: tensor for name, tensor in fitted.items() if name not in counters}
    fitted |= {name: needed[name] for name in counters & needed.keys()}
    load_module(net, fitted, path)
    broken = [name for name, tensor in net.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise IntegrityError(f"{path}: {broken[0]} holds NaN or infinity; fetch the weights again")
    return _normalisation(header, path)


def save_weights(path: str | Path, backbone: Backbone) -> None:
    """Write a backbone's weights and normalisation, for `load_weights` and other tools."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in backbone.net.state_dict().items()}
    header = {"backbone": backbone.name, "normalisation": json.dumps(backbone.normalisation)}
    write_atomically(Path(path), serialise(tensors, header))


def read_weight_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file or a torch file, by name, and the metadata of the former.

    Nothing in a torch file is executed. The key that a trainer wrapped the weights in is removed.
    """
    if _is_safetensors(path):
        return read_safetensors(path)
    try:
        with TorchFile(path) as file:
            found = file.values
            for wrapper in WRAPPERS:
                if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
                    found = found[wrapper]
            if not isinstance(found, Mapping) or not all(map(_is_weight, found.items())):
                raise IntegrityError(f"{path} needs a state_dict: names and tensors, and nothing besides")
            tensors = {name: file.load(stored) for name, stored in found.items()}
    except ValueError as error:
        raise IntegrityError(
            f"{path} cannot be read as weights alone, and nothing else in it is run: {first_line(error)}; fetch "
            "a damaged file again, or save the state_dict() and nothing besides"
        ) from error
    if all(name.startswith(GPUS) for name in tensors):
        tensors = {name.removeprefix(GPUS): tensor for name, tensor in tensors.items()}
    return tensors, {}


def _is_weight(item: tuple[object, object]) -> bool:
    name, value = item
    return isinstance(name, str) and isinstance(value, StoredTensor)


def _is_safetensors(path: Path) -> bool:
    """Whether a file is safetensors by its first bytes: its name may be anything."""
    if not path.is_file():
        raise SourceMissing(f"{path}: there is no such file of weights")
    with path.open("rb") as file:
        return path.suffix == ".safetensors" or file.read(HEADER_AT + 1)[HEADER_AT:] == b"{"


def usual_names(names: Iterable[str], net: nn.Module) -> dict[str, str]:
    """For each parameter name of another trainer the name in this network, which is often the same."""
    names = list(names)
    if LUKEMELAS not in names:
        return {name: name for name in names}
    at = [name for name, _ in net.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]
    return {name: _from_lukemelas(name, at) for name in names}


def _from_lukemelas(name: str, blocks: Sequence[str]) -> str:
    """timm's name for a parameter of the `efficientnet_pytorch` package."""
    match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(\w+)\.(\w+)", name)
    if match is None:
        return name
    number, part, kind = match.groups()
    if number is None:
        return f"{LUKEMELAS_TOP.get(part, part)}.{kind}"
    names = LUKEMELAS_BLOCK if int(number) else LUKEMELAS_FIRST
    if int(number) >= len(blocks) or part not in names:
        return name
    return f"{blocks[int(number)]}.{names[part]}.{kind}"


def _normalisation(header: Mapping[str, str], path: str | Path) -> PixelNormalisation | None:
    if "normalisation" not in header:
        return None
    try:
        mean, std = json.loads(header["normalisation"])
        (r, g, b), (s, t, u) = (tuple(float(value) for value in values) for values in (mean, std))
        found = PixelNormalisation((r, g, b), (s, t, u))
        if not is_usable(found):
            raise ValueError("a deviation is not positive, or a number not finite")  # noqa: TRY301
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise IntegrityError(
            f"{path}: its normalisation needs three means and three deviations, not "
            f"{header['normalisation'][:LONGEST_LINE]!r}"
        ) from error
    return found
