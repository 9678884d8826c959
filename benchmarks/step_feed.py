"""Steps of train.py, fed by the loader and from memory: the share of the speed that the loader keeps up."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Final

import torch

from benchmarks.common import TableRow, synchronize
from benchmarks.loader_gpu_parts import CloudSource
from learners.processes import join_processes
from learners.training.components import make_sampler
from learners.training.config import TrainingConfig
from pipeline.build.builder import build_shards
from pipeline.loader.episode import Episode
from pipeline.loader.loader import EpisodeLoader
from pipeline.records import Encoding, Item, Recipe, Survey
from train import TrainingRun

PAPER_TASKS: Final = 10_000  # tasks of the paper's run
DRAWN_IMAGES: Final = 6000
WARM_STEPS: Final = 1  # steps


@dataclass(frozen=True, kw_only=True)
class TrainingClouds(CloudSource):
    """Drawn images, all in the training split."""

    def survey(self) -> Survey:
        survey = super().survey()
        classes = tuple(replace(record, split="train") for record in survey.classes)
        items = (item._replace(split="train") for item in survey.items if isinstance(item, Item))
        return replace(survey, classes=classes, items=items)


def measure_feed(flags: Namespace) -> Iterator[TableRow]:
    """The figures of each learner, with episodes as varied as Meta-Dataset's."""
    shards = flags.shards or _draw_shards(flags)
    for name in flags.learners:
        config = TrainingConfig(
            shards=str(shards), out=str(flags.scratch / name), learner=name,
            backbone=flags.backbone, image_size=flags.size, h=flags.h,
            device=flags.device, tasks_per_step=2 if flags.quick else 16,
            precision="bfloat16" if flags.bfloat16 else "float32", tasks=16 * PAPER_TASKS,
        )  # fmt: skip
        yield {"learner": name} | feed_figures(config, flags.steps)


def feed_figures(config: TrainingConfig, steps: int) -> TableRow:
    """The same number of steps, fed by the loader, then from memory."""
    with join_processes(config.device) as members:
        run = TrainingRun.open(config, members, resume=False)
        sampler = make_sampler(run.shards, config, "train", config.seed)
        with EpisodeLoader(
            run.shards, sampler, image_size=config.image_size, h=0, chunk=128,
            device=members.device, decoder=config.decoder, threads=config.threads or None,
        ) as loader:  # fmt: skip
            episodes = iter(loader)
            step_seconds(run, episodes, WARM_STEPS)
            before = loader.stats
            fed = step_seconds(run, episodes, steps)
            used = loader.stats - before
            again, images = resident_episodes(episodes, config.tasks_per_step)
        step_seconds(run, cycle(again), WARM_STEPS)
        alone = step_seconds(run, cycle(again), steps)
    tasks = steps * config.tasks_per_step
    return {
        "images_per_second": used.images / fed,
        "resident_images_per_second": images * steps / alone,
        "held": used.images / fed / (images * steps / alone),
        "waiting": used.waiting / fed,
        "ms_per_task": 1000 * fed / tasks,
        "paper_run_minutes": PAPER_TASKS * fed / tasks / 60,
        "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if config.device == "cuda" else None,
    }


def resident_episodes(episodes: Iterator[Episode], count: int) -> tuple[list[Episode], int]:
    """Episodes with all their images in memory, and the number of images."""
    kept, images = [], 0
    for episode in islice(episodes, count):
        images += len(episode.support.images) + len(episode.query.images)
        kept.append(episode)
    return kept, images


def step_seconds(run: TrainingRun, episodes: Iterator[Episode], steps: int) -> float:
    """Seconds that so many steps take."""
    synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        run.step(episodes)
    synchronize()
    return time.perf_counter() - begin


def _draw_shards(flags: Namespace) -> Path:
    out: Path = flags.scratch / "shards"
    recipe = Recipe(sizes=(flags.size,), encodings=(Encoding.parse("jpeg:95"),))
    source = TrainingClouds(images=1000 if flags.quick else DRAWN_IMAGES)
    build_shards(source, out / "clouds", recipe)
    return out
