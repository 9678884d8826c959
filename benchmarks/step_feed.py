"""train.py's step, fed by the loader and from memory: how much of its speed the loader holds."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.loader_gpu_parts import Clouds, synchronize
from learners.processes import team
from learners.training.components import make_sampler
from learners.training.config import Config
from pipeline.build.builder import build_shards
from pipeline.loader.episode import Episode
from pipeline.loader.loader import EpisodeLoader
from pipeline.records import Encoding, Item, Recipe, Survey
from train import Run

PAPER: Final = 10_000  # tasks of its run
PICTURES: Final = 6000
WARM: Final = 1  # steps


@dataclass(frozen=True, kw_only=True)
class Training(Clouds):
    """Drawn pictures, all of them to train on."""

    def survey(self) -> Survey:
        survey = super().survey()
        classes = tuple(replace(record, split="train") for record in survey.classes)
        items = (item._replace(split="train") for item in survey.items if isinstance(item, Item))
        return replace(survey, classes=classes, items=items)


def feed(wish: Namespace) -> Iterator[dict[str, Any]]:
    """For each learner: episodes as varied as Meta-Dataset's."""
    shards = wish.shards or _draw(wish)
    for name in wish.learners:
        config = Config(
            shards=str(shards), out=str(wish.scratch / name), learner=name, backbone=wish.backbone,
            image_size=wish.size, h=wish.h, device=wish.device, tasks_per_step=2 if wish.quick else 16,
            precision="bfloat16" if wish.bfloat16 else "float32", tasks=16 * PAPER,
        )  # fmt: skip
        yield {"learner": name} | measure(config, wish.steps)


def measure(config: Config, steps: int) -> dict[str, Any]:
    """Fed, then from memory, the same number of steps."""
    with team(config.device) as members:
        run = Run.open(config, members, resume=False)
        sampler = make_sampler(run.shards, config, "train", config.seed)
        with EpisodeLoader(
            run.shards, sampler, image_size=config.image_size, h=0, chunk=128,
            device=members.device, decoder=config.decoder, threads=config.threads or None,
        ) as loader:  # fmt: skip
            episodes = iter(loader)
            timed(run, episodes, WARM)
            before = loader.stats
            fed = timed(run, episodes, steps)
            used = loader.stats - before
            again, images = read(episodes, config.tasks_per_step)
        timed(run, cycle(again), WARM)
        alone = timed(run, cycle(again), steps)
    tasks = steps * config.tasks_per_step
    return {
        "images_per_second": used.images / fed,
        "resident_images_per_second": images * steps / alone,
        "held": used.images / fed / (images * steps / alone),
        "waiting": used.waiting / fed,
        "ms_per_task": 1000 * fed / tasks,
        "paper_run_minutes": PAPER * fed / tasks / 60,
        "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if config.device == "cuda" else None,
    }


def read(episodes: Iterator[Episode], count: int) -> tuple[list[Episode], int]:
    """Episodes whose images are all there, and how many these are."""
    kept, images = [], 0
    for episode in islice(episodes, count):
        images += len(episode.support.images) + len(episode.query.images)
        kept.append(episode)
    return kept, images


def timed(run: Run, episodes: Iterator[Episode], steps: int) -> float:
    """Seconds of so many steps."""
    synchronize()
    begin = time.perf_counter()
    for _ in range(steps):
        run.step(episodes)
    synchronize()
    return time.perf_counter() - begin


def _draw(wish: Namespace) -> Path:
    out: Path = wish.scratch / "shards"
    recipe = Recipe(sizes=(wish.size,), encodings=(Encoding.parse("jpeg:95"),))
    source = Training(images=1000 if wish.quick else PICTURES)
    build_shards(source, out / "clouds", recipe)
    return out
