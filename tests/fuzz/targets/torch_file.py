"""Files of torch.save: `learners.networks.weights.read_weight_file`, as zip archives, in the old format, as pickles."""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections import OrderedDict
from typing import Any

import torch

from learners.networks.weights import read_weight_file
from pipeline.errors import PipelineError
from tests.fuzz.foreign_files import written
from tests.fuzz.mutations import mutate_bytes

LIMIT_MB = 300
PLAIN_SHARE = 0.3  # of inputs, whose bytes are changed and not those of the pickle in them
OPCODES = bytes(
    op
    for op in range(256)
    if chr(op) in "(.012FINIJKLMRSTUVXabcdeghijlopqrstu}])\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95"
)


def seeds() -> list[bytes]:
    one = torch.arange(4.0)
    state = OrderedDict({"a.weight": one.view(2, 2), "a.bias": one[:2], "turned": one.view(2, 2).T})
    trees: list[Any] = [
        state,
        {
            "state_dict": {"module.a": torch.zeros(2, dtype=torch.float16)},
            "epoch": 3,
            "best": (0.5, None, True),
        },
        {
            "a": torch.nn.Parameter(torch.zeros(0, 3)),
            "b": torch.ones(1, dtype=torch.bool),
            3: torch.zeros(1, dtype=torch.complex64),
        },
        {"sparse": torch.eye(3).to_sparse()},
    ]
    files = [pickle.dumps({"a": [1, 2.5, "x"]}, protocol=4)]
    for tree in trees:
        for zipped in (True, False):
            buffer = io.BytesIO()
            torch.save(tree, buffer, _use_new_zipfile_serialization=zipped)
            files.append(buffer.getvalue())
    return files


def mutate(data: bytes, generator: random.Random) -> bytes:
    """Change the pickle of a zip archive, with checksums that fit; other inputs byte by byte."""
    if generator.random() < PLAIN_SHARE or not zipfile.is_zipfile(io.BytesIO(data)):
        return _mutate_pickle(data, generator)
    output = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(output, "w") as new:
            for member in old.infolist():
                content = old.read(member)
                chosen = member.filename.endswith("data.pkl")
                if chosen or generator.random() < PLAIN_SHARE / 3:
                    content = (_mutate_pickle if chosen else mutate_bytes)(content, generator)
                packing = (
                    zipfile.ZIP_DEFLATED if generator.random() < PLAIN_SHARE / 10 else zipfile.ZIP_STORED
                )
                new.writestr(member.filename, content, packing)
    except Exception:  # noqa: BLE001 - of a file that is damaged already
        return mutate_bytes(data, generator)
    return output.getvalue()


def _mutate_pickle(data: bytes, generator: random.Random) -> bytes:
    if generator.random() < PLAIN_SHARE or not data:
        return mutate_bytes(data, generator)
    place = generator.randrange(len(data))
    kept = generator.randrange(2)  # a byte more, or another one
    run = bytes([generator.choice(OPCODES)]) * generator.choice((1, 1, 1, 2, 100))
    return data[:place] + run + data[place + kept :]


def check(data: bytes) -> None:
    try:
        tensors, _ = read_weight_file(written(data))
    except PipelineError:
        return
    for name, tensor in tensors.items():
        assert isinstance(name, str)
        assert tensor.nbytes <= len(data)
        tensor.clone()  # reads every number
