"""Steps of train.py fed by the loader, and the same episodes from memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, TypeAlias

import torch

from benchmarks.common import TableRow
from benchmarks.gpu.model import EpisodeShape, Learner, StepSetting, predict
from benchmarks.gpu.predictions import WIDTHS
from benchmarks.gpu.scale import MeasureScale
from benchmarks.gpu.sensor_means import SensorSampler
from benchmarks.step_feed import DRAWN_IMAGES, PAPER_TASKS, QUICK_EPISODES, draw_shards, feed_figures
from learners.networks.arithmetic import Precision
from learners.networks.backbones import RANDOM
from learners.training.config import TrainingConfig

FedCase: TypeAlias = tuple[Learner, int | Literal["auto"], Precision, int]
"""Learner, chunk, precision, and how many steps."""
FED_CASES: Final[tuple[FedCase, ...]] = (
    ("simple_cnaps", "auto", "bfloat16", 3), ("simple_cnaps", 40, "tf32", 1), ("simple_cnaps", "auto", "tf32", 2),
    ("protonets", "auto", "bfloat16", 3),
)  # fmt: skip
TASKS_PER_STEP: Final = 8  # half the default: steps are few, and so is the time
QUICK_IMAGES: Final = 500


def drawn_shards(scale: MeasureScale) -> str:
    """The drawn images that this part, `decode` and `race` use."""
    images = QUICK_IMAGES if scale.quick else DRAWN_IMAGES
    return str(draw_shards(scale.scratch, size=scale.pixels, images=images))


def measure(scale: MeasureScale) -> Iterator[TableRow]:
    """A row for each learner, chunk and precision; `held` is the time from memory over that fed."""
    shards = drawn_shards(scale)
    for case in FED_CASES[: 1 if scale.quick else None]:
        learner, chunk, precision, steps = case
        sizes: dict[str, Any] = QUICK_EPISODES if scale.quick else {"tasks_per_step": TASKS_PER_STEP}
        config = TrainingConfig(
            shards=shards, out=str(scale.scratch / f"{learner}-{chunk}-{precision}"), learner=learner,
            weights=RANDOM, backbone=scale.backbone, image_size=scale.pixels, device=scale.device, chunk=chunk,
            precision=precision, tasks=16 * PAPER_TASKS, **sizes,
        )  # fmt: skip
        with SensorSampler(torch.device(scale.device)) as sampler:
            row = feed_figures(config, 1 if scale.quick else steps)
        row = {"learner": learner, "precision": precision} | row | sampler.means()
        yield row if scale.quick else row | _predicted(case, row)


def _predicted(case: FedCase, row: TableRow) -> TableRow:
    """The model's time of the mean episode that was measured, with its chunks."""
    learner, _, precision, _ = case
    graph, forward = map(int, row["chunks"].split(" / "))
    shape = EpisodeShape(support=round(row["support"]), query=round(row["query"]), class_sizes=1)
    setting = StepSetting(learner=learner, width=WIDTHS[precision], chunk=graph, chunk_without_graph=forward)
    return {"predicted_ms": predict(shape, setting).step_ms, "predicted_held": "0.97 or more"}
