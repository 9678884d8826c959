from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from learners.checkpoint import (
    HEADER_LIMIT,
    NESTING_LIMIT,
    flatten,
    load,
    load_module,
    load_optimizer,
    save,
    unflatten,
)
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.layout import temporary_path
from pipeline.store.files import crc32

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.tensor(0.1, dtype=torch.float64),
    "c": torch.tensor([True, False]),
    "d": torch.randn(3, generator=torch.Generator().manual_seed(0)).bfloat16(),
    "e": torch.tensor([], dtype=torch.int64),
}
VALUES = {"step": 3, "best": 0.1 + 0.2, "name": "é", "list": [1, None, True], "worst": -1e-300}


def same(one: Any, other: Any) -> bool:
    """Whether two trees are equal to the bit, types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_tensors_and_values_come_back_bit_by_bit(tmp_path: Path) -> None:
    save(tmp_path / "c", TENSORS, VALUES)
    tensors, values = load(tmp_path / "c")
    assert same(values, VALUES)
    assert tensors.keys() == TENSORS.keys()
    assert all(same(tensors[name], TENSORS[name]) for name in TENSORS)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_equal_checkpoints_are_equal_files(tmp_path: Path) -> None:
    for number in range(12):  # libraries hash names by numbers that differ each time
        save(tmp_path / str(number), TENSORS, VALUES)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1


def test_what_dead_processes_left_beside_a_checkpoint_goes_with_the_next_save(tmp_path: Path) -> None:
    temporary_path(tmp_path / "c").write_bytes(b"half of a checkpoint")
    save(tmp_path / "c", TENSORS, VALUES)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_tensors_that_share_memory_or_lie_oddly_are_saved(tmp_path: Path) -> None:
    image = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)
    odd = {"one": image, "same": image, "part": image[:, 1:], "turned": image.mT}
    odd["parameter"] = nn.Parameter(torch.ones(3)).expand(5, 3)
    save(tmp_path / "c", odd, {})
    tensors, _ = load(tmp_path / "c")
    assert all(torch.equal(tensors[name], odd[name]) for name in odd)


@pytest.mark.parametrize("keep", [0, 4, 9, 200, -1])
def test_a_file_cut_short_is_refused(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "c"
    save(path, TENSORS, VALUES)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IntegrityError, match="not a whole safetensors file"):
        load(path)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "c"
    save(path, {"a": TENSORS["a"]}, {"step": 3})
    data = path.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        try:
            tensors, values = load(path)
        except IntegrityError:
            continue
        assert same(tensors, {"a": TENSORS["a"]})  # a header may say the same in two ways
        assert same(values, {"step": 3})


def test_files_of_others_and_lying_headers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with pytest.raises(SourceMissing, match="no such file"):
        load(path)
    save_file({"a": TENSORS["a"]}, path)
    with pytest.raises(IntegrityError, match=r"needed the format 'lite-shards 1', found no format"):
        load(path)
    for begin, end in ((0, 2**40), (0, -1), (5, 3)):
        entry = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [begin, end]}}
        header = json.dumps(entry).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
        with pytest.raises(IntegrityError, match="not a whole safetensors file"):
            load(path)
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(IntegrityError):
        load(path)


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    torch.save({"a": TENSORS["a"]}, tmp_path / "c")
    with pytest.raises(IntegrityError):
        load(tmp_path / "c")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    save(tmp_path / "c", TENSORS, VALUES)
    with pytest.raises(UsageError, match="what JSON can say"):
        save(tmp_path / "c", TENSORS, {"path": tmp_path})
    assert same(load(tmp_path / "c")[1], VALUES)
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_nested_state_comes_back_with_its_types(tmp_path: Path) -> None:
    tree = {
        0: {"x": TENSORS["a"], "y": (0.9, 0.999), "z": [None, "s", {"$tensor": 1}]},
        "plain": {"deep": [{"t": TENSORS["b"]}, ()]},
        None: True,
    }
    tensors, values = flatten(tree, "o")
    save(tmp_path / "c", tensors, {"tree": values})
    loaded, read = load(tmp_path / "c")
    assert same(unflatten(loaded, read["tree"]), tree)
    del loaded["o.0.x"]
    with pytest.raises(IntegrityError, match=r"no tensor 'o.0.x'"):
        unflatten(loaded, read["tree"])


@pytest.mark.parametrize(
    "values",
    [
        {"$tensor": []}, {"$tensor": "absent"}, {"$tuple": 5}, {"$pairs": [[1]]}, {"$pairs": [[[], 1]]},
        {"$pairs": 3}, {"$tuple": [{"$pairs": [[{}, 1]]}]},
    ],
)  # fmt: skip
def test_malformed_structure_is_one_error_with_the_files_name(values: Any) -> None:
    with pytest.raises(IntegrityError, match=r"last\.safetensors"):
        unflatten(TENSORS, values, "last.safetensors")


def test_values_nested_without_end_are_refused(tmp_path: Path) -> None:
    values: Any = 1
    for _ in range(NESTING_LIMIT):
        values = [values]
    with pytest.raises(IntegrityError, match=r"nested more than 64 levels"):
        unflatten({}, values)
    text = '{"deep": ' + "[" * 20_000 + "]" * 20_000 + "}"
    write_values(tmp_path / "c", text)
    with pytest.raises(IntegrityError, match="damaged"):
        load(tmp_path / "c")
    write_values(tmp_path / "c", "[1, 2]")
    with pytest.raises(IntegrityError, match="values are list"):
        load(tmp_path / "c")


def write_values(path: Path, text: str) -> None:
    """A checkpoint with this text in the place of its values, and with a checksum that fits."""
    save_file({}, path, {"format": "lite-shards 1", "values": text, "crc32": str(crc32(text.encode()))})


def test_a_header_that_would_fill_the_memory_is_refused_unread(tmp_path: Path) -> None:
    write_values(tmp_path / "c", " " * HEADER_LIMIT)
    with pytest.raises(IntegrityError, match=r"8,388,608 are the limit"):
        load(tmp_path / "c")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (torch.zeros(2, dtype=torch.complex64), "holds torch.complex64 and not torch.float32"),
        (torch.zeros(2, dtype=torch.int64), "holds torch.int64 and not torch.float32"),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), "holds torch.float8_e4m3fn"),
        (torch.eye(2)[0].to_sparse(), "is torch.sparse_coo and no dense tensor"),
        (3, "is int and no dense tensor"),
    ],
)
def test_what_is_no_tensor_of_the_networks_kind_is_refused(found: Any, words: str) -> None:
    module = nn.BatchNorm1d(2)
    before = module.weight.clone()
    with pytest.raises(IntegrityError, match=words):
        load_module(module, {**module.state_dict(), "weight": found}, "c")
    assert torch.equal(module.weight, before)
    with pytest.raises(IntegrityError, match=r"num_batches_tracked holds torch\.float32"):
        load_module(module, {**module.state_dict(), "num_batches_tracked": torch.tensor(1.0)}, "c")
    load_module(
        module,
        {name: value.double() if value.dim() else value for name, value in module.state_dict().items()},
        "c",
    )


def optimizer_of(name: str, module: nn.Module) -> torch.optim.Optimizer:
    first, *others = module.parameters()
    if name == "adam":
        return torch.optim.Adam([first, *others], lr=0.01, amsgrad=True)
    if name == "adamw":
        groups: list[dict[str, Any]] = [{"params": [first], "lr": 0.1}, {"params": others}]
        return torch.optim.AdamW(groups)
    return torch.optim.SGD([first, *others], lr=0.01, momentum=0.9)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2))
    return layers.to(memory_format=torch.channels_last)


def steps(module: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
    for number in numbers:
        x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(number))
        optimizer.zero_grad()
        y = module(x.to(memory_format=torch.channels_last))
        torch.autograd.backward(y.square().sum())
        optimizer.step()


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_training_goes_on_bit_by_bit_after_a_restart(name: str, tmp_path: Path) -> None:
    module = net()
    optimizer = optimizer_of(name, module)
    steps(module, optimizer, range(3))
    tensors, values = flatten(optimizer.state_dict(), "optimizer")
    tensors |= {f"net.{key}": value for key, value in module.state_dict().items()}
    save(tmp_path / "c", tensors, {"optimizer": values})
    steps(module, optimizer, range(3, 6))

    loaded, read = load(tmp_path / "c")
    again = net()
    weights = {k.removeprefix("net."): v for k, v in loaded.items() if k.startswith("net.")}
    load_module(again, weights, "c")
    other = optimizer_of(name, again)
    load_optimizer(other, unflatten(loaded, read["optimizer"]), "c")
    first = next(iter(other.state.values()))
    moment = first["momentum_buffer" if name == "sgd" else "exp_avg"]
    assert moment.is_contiguous(memory_format=torch.channels_last)
    steps(again, other, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True))
    assert same(flatten(optimizer.state_dict())[1], flatten(other.state_dict())[1])


@pytest.mark.parametrize("fused", [True, None])
def test_how_an_optimiser_computes_is_not_taken_from_a_file(*, fused: bool | None) -> None:
    module, again = net(), net()
    optimizer = torch.optim.Adam(module.parameters(), fused=not fused)
    steps(module, optimizer, range(1))
    other = torch.optim.Adam(again.parameters(), fused=fused)
    load_optimizer(other, optimizer.state_dict(), "c")
    assert other.param_groups[0]["fused"] is fused
    steps(again, other, range(1))


def test_the_state_of_another_architecture_is_refused(tmp_path: Path) -> None:
    module = net()
    optimizer = torch.optim.Adam(module.parameters())
    steps(module, optimizer, range(1))
    state = optimizer.state_dict()
    fewer = torch.optim.Adam(list(module.parameters())[:2])
    with pytest.raises(IntegrityError, match=r"not the state of this optimiser, which has groups of \[2\]"):
        load_optimizer(fewer, state, "c")
    wider = torch.optim.Adam(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).parameters())
    with pytest.raises(IntegrityError, match=r"a parameter of \[2, 2\] has a state of \[4, 3, 3, 3\]"):
        load_optimizer(wider, state, "c")
    with pytest.raises(IntegrityError, match="not the state of this optimiser"):
        load_optimizer(wider, {"lr": 3}, "c")
    before = [parameter.clone() for parameter in module.parameters()]
    with pytest.raises(IntegrityError, match=r"c does not fit.*lacks 0.weight.*has stranger"):
        load_module(module, {"stranger": torch.zeros(1), "2.bias": torch.zeros(2)}, "c")
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True))
