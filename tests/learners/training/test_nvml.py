"""NVML's readings of a GPU are taken where there are any, and nothing fails where there are none."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace

import pytest
import torch

from learners.training.nvml import GpuSensors

GPU = torch.device("cuda", 0)
UUID = "01234567-89ab-cdef-0123-456789abcdef"


class NvmlError(Exception):
    """In place of pynvml.NVMLError."""


def fail(*_: object) -> None:
    raise NvmlError("Not Supported")


def pretended_nvml() -> SimpleNamespace:
    """What we use of pynvml; readings are of the GPU with the UUID alone."""

    def of_our_gpu(value: object) -> object:
        def read(handle: str, *_: object) -> object:
            assert handle == f"GPU-{UUID}"
            return value

        return read

    return SimpleNamespace(
        NVMLError=NvmlError, NVML_CLOCK_SM=1, nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: name,
        nvmlDeviceGetUtilizationRates=of_our_gpu(SimpleNamespace(gpu=83, memory=20)),
        nvmlDeviceGetPowerUsage=of_our_gpu(512_300), nvmlDeviceGetClockInfo=of_our_gpu(1_980),
    )  # fmt: skip


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    library = pretended_nvml()
    monkeypatch.setitem(sys.modules, "pynvml", library)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(uuid=UUID))
    return library


def test_readings_are_a_share_watts_and_megahertz_of_the_gpu_that_torch_uses(nvml: SimpleNamespace) -> None:
    sensors = GpuSensors.open(GPU)
    assert sensors is not None
    assert sensors.read() == {"gpu_utilisation": 0.83, "gpu_power_w": 512.3, "gpu_clock_mhz": 1_980}


def test_a_sensor_that_a_gpu_lacks_is_left_out(nvml: SimpleNamespace) -> None:
    nvml.nvmlDeviceGetUtilizationRates = fail
    sensors = GpuSensors.open(GPU)
    assert sensors is not None
    assert sensors.read().keys() == {"gpu_power_w", "gpu_clock_mhz"}


@pytest.mark.parametrize("broken", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_nvml_that_cannot_answer_is_said_and_does_not_end_the_run(
    nvml: SimpleNamespace, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    setattr(nvml, broken, fail)
    with caplog.at_level(logging.WARNING):
        assert GpuSensors.open(GPU) is None
    assert "Not Supported" in caplog.text


def test_without_the_library_or_a_gpu_there_are_no_readings(
    nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert GpuSensors.open(torch.device("cpu")) is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuSensors.open(GPU) is None
