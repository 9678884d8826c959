"""Checkpoint files: `learners.checkpoint.load` and `unflatten`, with right checksums and without; also as weights."""

from __future__ import annotations

import json
import random
import struct
from contextlib import suppress
from typing import Any

import torch

from learners.checkpoint import NESTING_LIMIT, _checksum, flatten, load, pack, unflatten
from learners.networks.weights import read_weight_file
from pipeline.errors import PipelineError
from tests.fuzz.foreign_files import written
from tests.fuzz.json_mutations import mutate_json
from tests.fuzz.mutations import mutate_bytes

PLAIN_SHARE = 0.3  # of inputs, whose bytes are changed and not their values
TREE = {
    "learner": {"weight": torch.arange(6.0).view(2, 3), "count": torch.tensor(3)},
    "optimizer": {"state": {0: {"step": torch.tensor(1.0), "betas": (0.9, 0.999)}}, "param_groups": [{"lr": 0.1}]},
}  # fmt: skip
MARKERS: tuple[Any, ...] = (
    {"$tensor": "learner.weight"}, {"$tensor": []}, {"$tensor": None}, {"$tuple": 5}, {"$tuple": [[]]},
    {"$pairs": [[1]]}, {"$pairs": [[[], 1]]}, {"$pairs": {"a": 1}}, {"$pairs": [[{"$tuple": []}, 1]]},
)  # fmt: skip


def seeds() -> list[bytes]:
    tensors, values = flatten(TREE)
    nested: Any = 1
    for _ in range(NESTING_LIMIT - 3):
        nested = [nested]
    return [
        pack(tensors, {"about": {}, "state": values, "tasks": 3}, "seed"),
        pack({"a": torch.ones(2, dtype=torch.bfloat16)}, {"state": {"$pairs": [[1, nested]]}}, "seed"),
        pack({}, {}, "seed"),
    ]


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Change a header's values, mostly with a checksum that fits."""
    try:
        return _mutate_header(data, generator)
    except (ValueError, KeyError, TypeError, RecursionError):
        return mutate_bytes(data, generator)


def _mutate_header(data: bytes, generator: random.Random) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    values = json.loads(header["__metadata__"]["values"])
    if generator.random() < PLAIN_SHARE:
        return mutate_bytes(data, generator)
    if generator.random() < PLAIN_SHARE:
        header = mutate_json(header, generator)
    else:
        for _ in range(generator.randint(1, 3)):
            values = mutate_json(values, generator)
            if isinstance(values, dict) and values and generator.random() < PLAIN_SHARE:
                values[generator.choice([*values])] = generator.choice(MARKERS)
        text = json.dumps(values)
        header["__metadata__"] |= {"values": text, "crc32": _fitting(header, rest, text)}
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + rest


def _fitting(header: Any, rest: bytes, text: str) -> str:
    """The checksum of unchanged tensors and these values."""
    spans = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
    raw = {name: bytearray(rest[begin:end]) for name, (begin, end) in spans.items()}
    empty = torch.empty(0, dtype=torch.uint8)
    return str(
        _checksum({n: torch.frombuffer(d, dtype=empty.dtype) if d else empty for n, d in raw.items()}, text)
    )


def check(data: bytes) -> None:
    path = written(data)
    try:
        tensors, values = load(path)
        assert isinstance(values, dict)
        assert sum(tensor.nbytes for tensor in tensors.values()) <= len(data)
        for value in values.values():
            unflatten(tensors, value, path)
    except PipelineError:
        pass
    with suppress(PipelineError):
        read_weight_file(path)
