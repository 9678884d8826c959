"""What NVML says of a GPU, where `nvidia-ml-py` is installed: utilisation, power and clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)


class GpuSensors:
    """Reads the sensors of one GPU. Each reading is NVML's mean over the last 1/6 to 1 s."""

    def __init__(self, library: Any, handle: Any) -> None:
        """`library`: the module `pynvml`; `handle`: the GPU's."""
        self._error: type[Exception] = library.NVMLError
        self._readings: dict[str, Callable[[], float]] = {
            "gpu_utilisation": lambda: library.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
            "gpu_power_w": lambda: library.nvmlDeviceGetPowerUsage(handle) / 1e3,
            "gpu_clock_mhz": lambda: library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM),
        }

    @classmethod
    def open(cls, device: torch.device) -> GpuSensors | None:
        """The sensors of a device; None for a CPU, and where NVML or its Python library is not there."""
        if device.type != "cuda":
            return None
        try:
            import pynvml  # noqa: PLC0415 - an extra
        except ImportError:
            return None
        try:
            pynvml.nvmlInit()
            uuid = torch.cuda.get_device_properties(device).uuid
            return cls(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}"))
        except pynvml.NVMLError as error:  # no driver, or a part of a GPU (MIG)
            log.warning("NVML tells neither utilisation nor power of this GPU: %s", error)
            return None

    def read(self) -> dict[str, float]:
        """Utilisation as a share of the time, power in watts and the clock in MHz, as far as the GPU has them."""
        values = {}
        for name, reading in self._readings.items():
            try:
                values[name] = float(reading())
            except self._error:  # this GPU lacks the sensor
                continue
        return values
