"""What a step of training cost: seconds, waiting, images, arithmetic, memory, and how busy the GPU was."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import torch
from torch import Tensor, nn

from learners.evaluate.costs import network_macs
from learners.learner import MetaLearner
from learners.lite.stages import learns
from learners.processes import ProcessGroup
from learners.training.config import TrainingConfig
from learners.training.nvml import GpuSensors
from learners.training.step import StepScores
from pipeline.loader.loader import EpisodeLoader

FLOPS_PER_MAC: Final = 2  # a product and a sum


class NetworkWork:
    """Counts the multiply-accumulates of backbone and set encoder where images pass through them, until it is closed.

    Heads and the FiLM generator are left out.
    """

    def __init__(self, learner: MetaLearner, image_size: int, *, compiled: bool = False) -> None:
        self.macs = 0
        eager = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        with eager:  # one image would be compiled for by itself
            costs = [network_macs(network, image_size) for network in learner.networks]
        self._hooks = [
            network.register_forward_hook(self._counter(macs, learning=learns(network)))
            for network, macs in zip(learner.networks, costs, strict=True)
        ]

    def _counter(self, macs: int, *, learning: bool) -> Callable[[nn.Module, Any, Tensor], None]:
        """A hook of a network whose pass of one image takes so many.

        A gradient costs as much as the pass itself, to reach the network's input, and once more where weights learn.
        """
        backward = 2 if learning else 1

        def count(_network: nn.Module, _inputs: Any, vectors: Tensor) -> None:
            self.macs += len(vectors) * macs * (1 + backward * vectors.requires_grad)

        return count

    def close(self) -> None:
        """Stop counting."""
        for hook in self._hooks:
            hook.remove()


class StepMeter:
    """Measures steps of this process, between `begin` and `read`."""

    def __init__(
        self, config: TrainingConfig, learner: MetaLearner, loader: EpisodeLoader, processes: ProcessGroup
    ) -> None:
        self._loader = loader
        self._processes = processes
        self._sensors = GpuSensors.open(processes.device)
        self._work = NetworkWork(learner, config.image_size, compiled=config.compile)
        self.begin()

    def __enter__(self) -> StepMeter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._work.close()

    def begin(self) -> None:
        """Begin a step."""
        self._begun, self._before = time.perf_counter(), self._loader.stats
        self._work.macs = 0

    def read(self, scores: StepScores, episodes: int) -> dict[str, float]:
        """The record of a step over so many episodes of all processes; rates are of all of them together."""
        seconds, used = time.perf_counter() - self._begun, self._loader.stats - self._before
        size, device = self._processes.size, self._processes.device
        values = {
            "loss": scores.loss, "accuracy": scores.accuracy, "seconds": seconds,
            "episodes_per_second": episodes / seconds, "images_per_second": used.images * size / seconds,
            "tflops": FLOPS_PER_MAC * self._work.macs * size / seconds / 1e12,
            "waiting": used.waiting / seconds, "memory_mb": memory_mb(device),
        }  # fmt: skip
        if device.type == "cuda":
            values["gpu_wait"] = scores.waited * episodes / size / seconds
            values["stalled"] = used.stalled / seconds
            values["memory_reserved_mb"] = torch.cuda.max_memory_reserved(device) / 1e6
        return values if self._sensors is None else {**values, **self._sensors.read()}


def memory_mb(device: torch.device) -> float:
    """The peak memory so far, in MB: of the tensors on the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
