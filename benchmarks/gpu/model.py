"""A model of one training episode on a GPU: the host's launches against the GPU's kernels.

    python -m benchmarks.gpu.model_tables     its tables, as docs/how-fast.md has them

A step takes as long as the slower of the two: Python, which launches some thousands of kernels and needs as long
for a small chunk as for a large one, and the kernels, which take time for each image. The constants are published
figures and CPU time measured on one core (`benchmarks.gpu.costs`), none of them measured on an H200: what the model
says is a prediction until measured. `benchmarks.gpu` prints it beside what it measures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, TypeAlias

from benchmarks.gpu.costs import (
    COMPILED_KERNELS,
    COMPILED_LAUNCHES,
    DRAINED_QUEUE,
    EIGH_MS,
    ENCODER_COSTS,
    EPISODE_GB,
    HEAD_COSTS,
    HOST_RANGE,
    KERNEL_RANGE,
    NETWORK_COSTS,
    PUBLISHED_PIXELS,
    SMALL_BATCHES,
    GraphicsCard,
    HeadForm,
    NetworkCosts,
    Width,
)
from learners.lite.chunk_choice import CHUNK_CHOICES, MEMORY_SHARE

Learner: TypeAlias = Literal["simple_cnaps", "protonets"]
PAPER_TASKS: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class EpisodeShape:
    """What an episode has to compute."""

    support: int
    query: int
    class_sizes: int
    """Different numbers of shots; they cost time in the head's earlier form alone."""


LARGEST_EPISODE: Final = EpisodeShape(support=500, query=500, class_sizes=22)
MEAN_EPISODE: Final = EpisodeShape(support=362, query=209, class_sizes=14)
"""The mean of 4,000 draws from the eight training datasets by Meta-Dataset's law."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepSetting:
    """How the gradient of an episode is computed."""

    learner: Learner = "simple_cnaps"
    backbone: str = "efficientnet_b0"
    size: int = 224
    """Pixels."""
    width: Width = "tf32"
    chunk: int = 40
    chunk_without_graph: int = 0
    """Images of a pass without a graph; 0: as many as with one."""
    h: int = 40
    query_h: int = 0
    """Queries that are back-propagated; 0: all."""
    head: HeadForm = "batch"
    compiled: bool = False

    @property
    def costs(self) -> NetworkCosts:
        return NETWORK_COSTS[self.backbone]

    @property
    def adapts(self) -> bool:
        """Whether the gradient ends at FiLM, with a set encoder and the Mahalanobis head."""
        return self.learner == "simple_cnaps"

    @property
    def plain_chunk(self) -> int:
        return self.chunk_without_graph or self.chunk

    @property
    def pixel_share(self) -> float:
        """An image's pixels over those of the published figures."""
        return (self.size / PUBLISHED_PIXELS) ** 2


@dataclass(frozen=True, slots=True)
class StepPrediction:
    """The time of one episode's gradient, in milliseconds."""

    host_ms: float
    kernel_ms: float
    step_ms: float
    images: int

    @property
    def busy(self) -> float:
        """The share of the time in which kernels run."""
        return min(1.0, self.kernel_ms / self.step_ms)

    @property
    def images_per_second(self) -> float:
        return 1000 * self.images / self.step_ms

    @property
    def paper_minutes(self) -> float:
        """Minutes of the paper's 10,000 tasks."""
        return PAPER_TASKS * self.step_ms / 60_000


@dataclass(frozen=True, slots=True)
class ModelScale:
    """Factors of the constants: another host, another card, another eigendecomposition."""

    host: float = 1.0
    kernels: float = 1.0
    eigh_ms: float = EIGH_MS


def predict(shape: EpisodeShape, setting: StepSetting, scale: ModelScale | None = None) -> StepPrediction:
    """Predict the time of an episode."""
    scale = scale or ModelScale()
    host = scale.host * _host_ms(shape, setting)
    serial = scale.eigh_ms if setting.adapts else 0.0  # on any card, and the host waits for it
    kernels = scale.kernels * _kernel_ms(shape, setting) + serial
    share, fixed = DRAINED_QUEUE
    step = max(host + serial, kernels) * (1 + share) + fixed
    return StepPrediction(host, kernels, step, shape.support + shape.query)


def _host_ms(shape: EpisodeShape, setting: StepSetting) -> float:
    """The time in which Python launches everything."""
    costs = setting.costs.host
    casts = (
        setting.width == "half" and not setting.adapts
    )  # a frozen network's weights are cast once and kept
    graph = (costs.film if setting.adapts else costs.weights) + casts * costs.casts_backward
    drawn = setting.query_h or shape.query
    plain = math.ceil(shape.support / setting.plain_chunk)
    query_chunks, replays = math.ceil(drawn / setting.chunk), math.ceil(setting.h / setting.chunk)
    looked = math.ceil(shape.query / setting.plain_chunk) if setting.query_h else 0
    networks = (plain + looked) * costs.forward + (query_chunks + replays) * graph + casts * costs.casts
    total = networks * (COMPILED_LAUNCHES if setting.compiled else 1) + costs.rest
    if setting.adapts:
        head = HEAD_COSTS[setting.head]
        sizes = shape.class_sizes if setting.head == "by size" else 1
        total += plain * ENCODER_COSTS.forward + replays * ENCODER_COSTS.weights
        total += sizes * ((looked or query_chunks) * head.chunk_ms + head.fit_ms)
    return total


def _kernel_ms(shape: EpisodeShape, setting: StepSetting) -> float:
    """The time of all kernels but the head's factorisation."""
    costs = setting.costs.kernels[setting.width]
    drawn = setting.query_h or shape.query
    forward = shape.support + (shape.query if setting.query_h else 0)
    graph = costs.film if setting.adapts else costs.weights
    networks = forward * costs.forward * _smallness(setting, setting.plain_chunk)
    networks += (drawn + setting.h) * graph * _smallness(setting, setting.chunk)
    networks *= setting.pixel_share * (COMPILED_KERNELS if setting.compiled else 1)
    if not setting.adapts:
        return networks
    return networks + (shape.support + 3 * setting.h) * ENCODER_COSTS.image_ms + HEAD_COSTS["batch"].kernel_ms


def _smallness(setting: StepSetting, chunk: int) -> float:
    """How much longer an image takes where a batch is too small for the card."""
    pixels = chunk * setting.pixel_share
    return next(factor for least, factor in SMALL_BATCHES if pixels >= least)


def memory_gb(setting: StepSetting) -> float:
    """Gigabytes that a step allocates on the device, episodes included; the CUDA context not."""
    costs = setting.costs.memory[setting.width]
    per_image = max(setting.chunk * costs.graph_mb, setting.plain_chunk * costs.no_graph_mb)
    return EPISODE_GB * setting.pixel_share + per_image * setting.pixel_share / 1000


def minutes_range(shape: EpisodeShape, setting: StepSetting) -> tuple[float, float]:
    """The least and the most minutes of 10,000 tasks, over the constants' ranges."""
    scales = product(HOST_RANGE, KERNEL_RANGE, (3.0, 30.0))
    minutes = [
        predict(shape, setting, ModelScale(host, kernels, eigh)).paper_minutes
        for host, kernels, eigh in scales
    ]
    return min(minutes), max(minutes)


def largest_chunk(card: GraphicsCard, setting: StepSetting, *, graph: bool = True) -> int:
    """The chunk that `--chunk auto` chooses if passes of this kind have all of a card's memory."""
    costs = setting.costs.memory[setting.width]
    each = (costs.graph_mb if graph else costs.no_graph_mb) * setting.pixel_share / 1000
    return max(chunk for chunk in CHUNK_CHOICES if chunk * each <= MEMORY_SHARE * card.free_gb)
