"""Means of a GPU's sensors while something runs."""

from __future__ import annotations

import statistics
import threading
from collections import defaultdict
from typing import Final

import torch

from benchmarks.common import TableRow
from learners.training.nvml import GpuSensors

SAMPLE_INTERVAL: Final = 0.1  # seconds; NVML's own means are over 1/6 s or more


class SensorSampler:
    """Samples utilisation, power and clock while it is entered; nothing where NVML is not there."""

    def __init__(self, device: torch.device) -> None:
        self._sensors = GpuSensors.open(device)
        self._samples: dict[str, list[float]] = defaultdict(list)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> SensorSampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while self._sensors is not None and not self._stop.wait(SAMPLE_INTERVAL):
            for name, value in self._sensors.read().items():
                self._samples[name].append(value)

    def means(self) -> TableRow:
        """The mean of each sensor."""
        return {name: statistics.fmean(values) for name, values in self._samples.items()}
