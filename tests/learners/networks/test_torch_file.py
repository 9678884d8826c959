"""Files of torch.save give the tensors that torch.load gives; nothing in them runs, hangs or takes all memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from learners.networks import backbone
from learners.networks.inert_pickle import INSTRUCTION_LIMIT, read_pickle
from learners.networks.weights import read_weight_file
from pipeline.errors import IntegrityError

SMALL_STATE = {"a": torch.arange(6.0).view(2, 3)}


def file_of(values: object, folder: Path, *, zipped: bool = True) -> Path:
    torch.save(values, folder / "w.pth", _use_new_zipfile_serialization=zipped)
    return folder / "w.pth"


def repacked(path: Path, changes: dict[str, bytes], packing: int = zipfile.ZIP_STORED) -> Path:
    """A zip archive with other members, by the ends of their names."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", packing) as new:
        for name, data in members.items():
            new.writestr(name, changes.get(name.partition("/")[2], data))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(IntegrityError) as caught:
        read_weight_file(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_those_that_torch_reads(zipped: bool, tmp_path: Path) -> None:  # noqa: FBT001
    shared = torch.randn(4, 6)
    state: OrderedDict[str, Tensor] = OrderedDict({
        "whole": shared, "part": shared[1:, 2:4], "turned": shared.T, "parameter": nn.Parameter(torch.ones(2)),
        "scalar": torch.tensor(3), "none": torch.zeros(0, 5), "half": torch.randn(3).half(),
        "bool": torch.tensor([True, False]), "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    })  # fmt: skip
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    path = file_of(state, tmp_path, zipped=zipped)
    found, expected = read_weight_file(path)[0], torch.load(path, weights_only=True)
    assert [*found] == [*expected]
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].stride()) == (tensor.dtype, tensor.stride())
        assert torch.equal(found[name], tensor)
    assert found["part"].untyped_storage().data_ptr() == found["whole"].untyped_storage().data_ptr()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({1: torch.zeros(2)}, "needs a state_dict: names and tensors"),
        ({"a": torch.eye(3).to_sparse()}, r"asks Python for torch.serialization._get_layout"),
        ({"a": torch.zeros(2, dtype=torch.complex64).conj()}, "a kind that no weights have"),
        ({"a": torch.zeros(1).expand(10**12)}, r"a tensor of \[1000000000000\] in a storage of 1 numbers"),
        ({"a": torch.zeros(2, dtype=torch.uint16)}, "UntypedStorage, which no weights"),
    ],
)
def test_what_is_no_dense_weight_is_refused(values: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(refusal(file_of(values, tmp_path)))


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("blocks.0.conv.weight", torch.zeros(64, 3, 3, 3, dtype=torch.complex64), "holds torch.complex64"),
        ("blocks.0.conv.weight", torch.zeros(64, 3, 3, 3, dtype=torch.int64), "holds torch.int64"),
        ("blocks.0.conv.weight", torch.full((64, 3, 3, 3), 1e300, dtype=torch.float64), "NaN or infinity"),
    ],
)
def test_numbers_of_another_kind_than_the_networks_are_refused(
    name: str, tensor: Tensor, words: str, tmp_path: Path
) -> None:
    state = backbone("conv4").net.state_dict()
    assert name in state
    with pytest.raises(IntegrityError, match=words):
        backbone("conv4", weights=file_of({**state, name: tensor}, tmp_path))


def test_members_that_unpack_to_more_than_the_file_are_refused(tmp_path: Path) -> None:
    path = file_of({"a": torch.zeros(1 << 20)}, tmp_path)
    assert "larger than the file" in refusal(repacked(path, {}, zipfile.ZIP_DEFLATED))
    small = file_of({"a": torch.randn(3)}, tmp_path)
    assert "is compressed" in refusal(repacked(small, {"data.pkl": os.urandom(50)}, zipfile.ZIP_DEFLATED))


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    path = file_of(SMALL_STATE, tmp_path)
    data = path.read_bytes()
    place = data.index(struct.pack("<f", 5.0))
    path.write_bytes(data[:place] + b"\x01" + data[place + 1 :])
    assert "data/0 is damaged: Bad CRC-32" in refusal(path)


def test_numbers_in_the_other_order_of_bytes_are_refused(tmp_path: Path) -> None:
    path = repacked(file_of(SMALL_STATE, tmp_path), {"byteorder": b"big"})
    assert "another order of bytes" in refusal(path)


def test_an_old_file_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    path = file_of(SMALL_STATE, tmp_path, zipped=False)
    path.write_bytes(path.read_bytes()[:-1])
    assert "ends before the numbers" in refusal(path)


DOUBLED = b")" + b"q\x00h\x00\x86" * 60
"""Puts (x, x) in the place of x sixty times: the hash and the text of the result take 2^60 steps."""


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (b"cos\nsystem\n(S'false'\ntR.", "asks Python for os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05false\x85R.", "asks Python for os.system"),
        (b"(S'false'\nios\nsystem\n.", "instruction INST"),
        (b"(cos\nsystem\nS'false'\no.", "instruction OBJ"),
        (b"\x80\x02cos\nsystem\n)\x81.", "instruction NEWOBJ"),
        (b"\x80\x04cos\nsystem\n)}\x92.", "instruction NEWOBJ_EX"),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
        (b"Pstorage\n.", "instruction PERSID"),
        (b"ccollections\nOrderedDict\n)RS'x'\nb]S'x'\nb.", "sets attributes of list"),
        (b"}" + DOUBLED + b"Ns.", "a key is tuple"),
        (b"(S'storage'\n" + DOUBLED + DOUBLED + b"NNtQ.", "no plain storage"),
        (b"]" * (INSTRUCTION_LIMIT + 1) + b".", "more than 2,000,000 instructions"),
        (b"\x8b\xff\xff\xff\x7f.", "not enough data"),
        (b"h\x05.", "damaged"),
        (b"0.", "damaged"),
        (b"", "exhausted"),
    ],
)
def test_a_pickle_runs_nothing_and_ends_soon(program: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_pickle(io.BytesIO(program))


def test_plain_values_of_a_pickle_are_read(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "epoch": 3,
        "best": (0.5, None, True),
        "names": ["a", "b"] * 300,
        "big": 1 << 100,
    }
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert read_pickle(io.BytesIO(pickle.dumps(values, protocol))) == values
    assert (
        read_weight_file(file_of({"model": SMALL_STATE, **values}, tmp_path))[0].keys() == SMALL_STATE.keys()
    )
