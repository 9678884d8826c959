"""Constants of the model, each with its unit and its source; all are predictions for an H200 until measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Width: TypeAlias = Literal["tf32", "half"]
"""Of the networks' convolutions: TF32, or float16 and bfloat16, which take the same time and memory."""
HeadForm: TypeAlias = Literal["by size", "batch"]
"""The Mahalanobis head: a loop over class sizes (until November 2026), or one padded batch."""
PUBLISHED_PIXELS: Final = 224
HOST_RANGE: Final = (0.6, 1.3)  # of the host's time: other CPUs, and what was measured with one thread
KERNEL_RANGE: Final = (0.8, 1.4)  # of the kernels' time: what was scaled from other cards


@dataclass(frozen=True, kw_only=True, slots=True)
class HostCosts:
    """Milliseconds in which one thread launches a pass, whatever the number of images."""

    forward: float
    film: float
    """Forward and backward, to FiLM."""
    weights: float
    """Forward and backward, to the weights."""
    casts: float
    """More with autocast: the weights are cast once for all passes without a graph."""
    casts_backward: float
    """More with autocast in each pass with a graph, where the weights learn."""
    rest: float = 4.0
    """Of an episode: draws, labels, sums, the optimiser's share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelCosts:
    """Milliseconds of kernels for an image of 224 pixels, in large batches."""

    forward: float
    film: float
    weights: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryCosts:
    """Megabytes for an image of 224 pixels in a pass."""

    graph_mb: float
    no_graph_mb: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCosts:
    """What a backbone costs."""

    host: HostCosts
    kernels: dict[Width, KernelCosts]
    memory: dict[Width, MemoryCosts]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadCosts:
    """What the Mahalanobis head costs an episode of 50 classes."""

    chunk_ms: float
    """Host time for a chunk of queries, forward and backward; of each class size in the loop."""
    fit_ms: float
    """Host time to fit and to send gradients back; likewise."""
    kernel_ms: float = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderCosts:
    """What the set encoder costs."""

    forward: float
    weights: float
    """Milliseconds of the host for a pass."""
    image_ms: float
    """Kernels for an image, forward; backward takes twice that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphicsCard:
    """A kind of GPU."""

    name: str
    memory_gb: float
    kernels: float
    """The time of its kernels over an H200's."""

    @property
    def free_gb(self) -> float:
        """What CUDA's context (0.5 GB) leaves."""
        return self.memory_gb - 0.5


NETWORK_COSTS: Final = {
    "efficientnet_b0": NetworkCosts(
        # CPU time with images so small that launching is all (one EPYC core, torch 2.14); NVIDIA's A100 table has
        # 11.2 ms for a batch of 1 and 13.0 for 32 with AMP, so a pass of 40 images is launch-bound there already
        host=HostCosts(forward=7.5, film=17.5, weights=26.0, casts=1.5, casts_backward=3.0),
        kernels={
            # an A100's 10,239 images/s forward and 2,489 in training with AMP (NVIDIA DeepLearningExamples), halved
            # by the bandwidth; timm's RTX 4090 (8,542) and DALI's H100 (4,760 in training) agree within 1.4
            "half": KernelCosts(forward=0.050, film=0.143, weights=0.205),
            # an A100's 5,154 and 1,078 with TF32
            "tf32": KernelCosts(forward=0.095, film=0.28, weights=0.455),
        },
        # python -m benchmarks.gpu.live_bytes
        memory={
            "half": MemoryCosts(graph_mb=45.1, no_graph_mb=7.3),
            "tf32": MemoryCosts(graph_mb=89.6, no_graph_mb=13.9),
        },
    ),
    "resnet18": NetworkCosts(
        host=HostCosts(forward=2.2, film=6.0, weights=7.5, casts=0.5, casts_backward=1.0),
        kernels={
            # timm's RTX 4090 (18,247 images/s) and 5090 (35,635)
            "half": KernelCosts(forward=0.022, film=0.062, weights=0.070),
            "tf32": KernelCosts(forward=0.045, film=0.12, weights=0.15),
        },
        # python -m benchmarks.gpu.live_bytes --backbone resnet18
        memory={
            "half": MemoryCosts(graph_mb=11.7, no_graph_mb=4.1),
            "tf32": MemoryCosts(graph_mb=21.7, no_graph_mb=6.8),
        },
    ),
}
HEAD_COSTS: Final[dict[HeadForm, HeadCosts]] = {
    "by size": HeadCosts(chunk_ms=0.24, fit_ms=0.7),  # 5.2 and some 15 ms of CPU time with 22 sizes
    "batch": HeadCosts(chunk_ms=1.2, fit_ms=3.0),
}
ENCODER_COSTS: Final = EncoderCosts(forward=0.8, weights=2.0, image_ms=0.008)  # CPU time; 0.2 GFLOP an image
EIGH_MS: Final = (
    15.0  # of one 500 x 500 matrix; 3 to 30: 1.8 ms for 100 x 100 (pytorch #174674), jax's driver 1.7 for 512
)
COMPILED_LAUNCHES: Final = 1 / 2.8  # of the networks' host time with --compile: 80 kernels for 240
COMPILED_KERNELS: Final = (
    1 / 1.3
)  # of their kernels' time: timm's RTX 4090, 9,637 images/s compiled, 7,243 eager
SMALL_BATCHES: Final = (
    (128, 1.0),
    (64, 1.1),
    (0, 1.25),
)  # from so many images of 224 px on: factor of the kernels' time
DRAINED_QUEUE: Final = (
    0.05,
    2.0,
)  # share of a step, and ms: each synchronisation lets the GPU's queue run dry
EPISODE_GB: Final = (
    0.6  # 150 MB for the episode in work and as much read ahead (224 px), and the weights' states
)
CARDS: Final = (
    GraphicsCard(
        name="16 GB (RTX 4080)", memory_gb=16, kernels=3.3
    ),  # the 4090's, by bandwidth (0.72 of 1.01 TB/s)
    GraphicsCard(
        name="24 GB (RTX 4090)", memory_gb=24, kernels=2.3
    ),  # timm's forward with AMP, 8,542 images/s
    GraphicsCard(name="80 GB (A100)", memory_gb=80, kernels=2.0),  # the source of the H200's figures
    GraphicsCard(name="141 GB (H200)", memory_gb=141, kernels=1.0),
)
