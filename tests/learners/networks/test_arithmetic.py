"""The switches of precision and of repeated bits: set within their context, put back after it, quiet on a CPU."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from learners.heads.base import full_precision
from learners.networks.arithmetic import (
    CUBLAS_WORKSPACE,
    Precision,
    autocast_dtype,
    convolutions_use_tf32,
    known_precision,
    network_arithmetic,
    network_precision,
    products_use_tf32,
    repeated_bits,
)
from pipeline.errors import UsageError

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # none is needed: switches are set for it all the same


def switches() -> dict[str, Any]:
    """All that `repeated_bits` sets."""
    filling: Any = torch.utils.deterministic
    return {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "only warned": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "filling": filling.fill_uninitialized_memory,
        "workspace": os.environ.get(CUBLAS_WORKSPACE),
    }


@pytest.mark.parametrize("precision", ["tf32", "float32", "float16", "bfloat16"])
def test_tf32_is_on_for_tf32_alone_and_put_back(precision: Precision) -> None:
    for outer in ("tf32", "float32"):
        with network_precision(outer):
            with network_precision(precision):
                assert {convolutions_use_tf32(), products_use_tf32()} == {precision == "tf32"}
            assert {convolutions_use_tf32(), products_use_tf32()} == {outer == "tf32"}


def test_tf32_is_put_back_after_an_error() -> None:
    with network_precision("float32"):
        with pytest.raises(ZeroDivisionError), network_precision("tf32"):
            _ = 1 / 0
        assert not convolutions_use_tf32()


@pytest.mark.parametrize("precision", ["tf32", "float32"])
def test_the_older_names_of_the_switches_can_be_read_as_torch_compile_does(precision: Precision) -> None:
    with network_precision(precision):
        with full_precision(CPU):
            assert not products_use_tf32()
            assert convolutions_use_tf32() == (precision == "tf32")
            assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
            torch.get_float32_matmul_precision()
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")


def test_tf32_is_float32_on_a_cpu() -> None:
    assert known_precision("tf32", CPU) == "float32"
    assert known_precision("tf32", GPU) == "tf32"
    assert known_precision("bfloat16", CPU) == "bfloat16"
    images, weights = torch.randn(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
    with network_precision("float32"):
        plain = torch.conv2d(images, weights)
    with network_precision("tf32"):
        assert torch.equal(torch.conv2d(images, weights), plain)


def test_half_precision_is_autocast_and_the_others_are_not() -> None:
    found = [autocast_dtype(precision) for precision in ("tf32", "float32", "float16", "bfloat16")]
    assert found == [None, None, torch.float16, torch.bfloat16]


@pytest.mark.parametrize(("device", "wanted"), [(CPU, True), (GPU, False)])
def test_nothing_changes_on_a_cpu_or_where_it_is_not_wanted(device: torch.device, *, wanted: bool) -> None:
    before = switches()
    with network_arithmetic("tf32", device, deterministic=wanted):
        assert switches() == before


def test_repeated_bits_set_every_switch_and_put_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CUBLAS_WORKSPACE, raising=False)
    before = switches()
    with repeated_bits(GPU, wanted=True):
        expected = {"algorithms": True, "only warned": False, "cudnn": (True, False), "filling": False}
        assert switches() == {**expected, "workspace": ":4096:8"}
    assert switches() == {**before, "workspace": ":4096:8"}  # cuBLAS has read it: it stays


def test_an_operation_without_a_form_that_repeats_its_bits_is_named() -> None:
    with (
        pytest.raises(UsageError, match=r"--deterministic: put_ has no form on a GPU.*leave the flag out"),
        repeated_bits(GPU, wanted=True),
    ):
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))  # torch refuses it on a CPU as well
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="of something else"), repeated_bits(GPU, wanted=True):
        raise RuntimeError("of something else")


def test_a_workspace_with_which_bits_differ_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CUBLAS_WORKSPACE, ":0:0")
    with (
        pytest.raises(UsageError, match=r":4096:8 or :16:8, and it is ':0:0'"),
        repeated_bits(GPU, wanted=True),
    ):
        pass
