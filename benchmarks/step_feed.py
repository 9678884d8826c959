"""Steps of train.py, fed by the loader, then the same episodes from memory: the share of the speed that it keeps up."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch

from benchmarks.common import TableRow, synchronize
from benchmarks.loader_gpu_parts import CloudSource
from learners.networks.arithmetic import network_arithmetic
from learners.networks.backbones import RANDOM
from learners.networks.chunk_sizes import ChunkSizes
from learners.processes import join_processes
from learners.training.components import open_loader
from learners.training.config import TrainingConfig
from pipeline.build.builder import build_shards
from pipeline.loader.episode import Episode
from pipeline.loader.loader import EpisodeLoader
from pipeline.loader.stats import Stats
from pipeline.records import Encoding, Item, Recipe, Survey
from train import TrainingRun

PAPER_TASKS: Final = 10_000  # tasks of the paper's run
DRAWN_IMAGES: Final = 6000
WARM_STEPS: Final = 1  # steps
QUICK_EPISODES: Final[dict[str, Any]] = {"tasks_per_step": 2, "max_way": 5, "max_support": 30, "query": 2}


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
    images = 1000 if flags.quick else DRAWN_IMAGES
    shards = flags.shards or draw_shards(flags.scratch, size=flags.size, images=images)
    for name in flags.learners:
        config = TrainingConfig(
            shards=str(shards), out=str(flags.scratch / name), learner=name, weights=RANDOM,
            backbone=flags.backbone, image_size=flags.size, h=flags.h, device=flags.device,
            chunk=flags.chunk, precision=flags.precision, tasks=16 * PAPER_TASKS,
            **(QUICK_EPISODES if flags.quick else {}),
        )  # fmt: skip
        yield {"learner": name} | feed_figures(config, flags.steps)


class FedEpisode(NamedTuple):
    """An episode that was measured."""

    number: int
    support: int
    """Images."""
    query: int


@dataclass(frozen=True, kw_only=True, slots=True)
class FedSteps:
    """Seconds of the same steps, fed by the loader and from memory."""

    fed: float
    resident: float
    gpu_wait: float
    """Seconds of the fed steps in which the host waited for the GPU's results."""
    used: Stats
    """The loader's figures of the fed steps."""
    chunks: ChunkSizes
    """Those of the settings, or with auto those that were chosen."""
    fed_episodes: list[FedEpisode]
    resident_episodes: list[FedEpisode]


def feed_figures(config: TrainingConfig, steps: int) -> TableRow:
    """Figures of so many steps, fed by the loader and from memory."""
    if config.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    measured = measure_steps(config, steps)
    used, tasks = measured.used, len(measured.fed_episodes)
    return {
        "chunks": "{} / {}".format(*measured.chunks),
        "support": sum(episode.support for episode in measured.fed_episodes) / tasks,
        "query": sum(episode.query for episode in measured.fed_episodes) / tasks,
        "images_per_second": used.images / measured.fed,
        "resident_images_per_second": used.images / measured.resident,
        "held": measured.resident / measured.fed,
        "waiting": used.waiting / measured.fed,
        "stalled": used.stalled / measured.fed,
        "gpu_wait": measured.gpu_wait / measured.fed,
        "ms_per_task": 1000 * measured.fed / tasks,
        "paper_run_minutes": PAPER_TASKS * measured.fed / tasks / 60,
        "peak_mb": torch.cuda.max_memory_allocated() / 1e6 if config.device == "cuda" else None,
    }


def measure_steps(config: TrainingConfig, steps: int) -> FedSteps:
    """Take steps that the loader feeds, then as many with the same episodes in memory before the clock starts.

    Of the second kind one step's episodes are in memory at a time, and the loader stands still meanwhile.
    """
    with (
        join_processes(config.device) as members,
        members.hold(config.folder),
        network_arithmetic(config.precision, members.device),
    ):
        run = TrainingRun.open(config, members, resume=False)
        run.begin(resume=False)
        with open_loader(run.shards, run.sampler, config, members) as loader:
            take_steps(run, iter(loader), WARM_STEPS)
            begin, before, fed_episodes = loader.state_dict(), loader.stats, list[FedEpisode]()
            fed, waited = take_steps(run, _listed(iter(loader), fed_episodes), steps)
            used = loader.stats - before
            resident, resident_episodes = 0.0, list[FedEpisode]()
            loader.load_state_dict(begin)
            for _ in range(steps):
                episodes = resident_step(loader, config.tasks_per_step)
                resident += take_steps(run, _listed(iter(episodes), resident_episodes), 1)[0]
    return FedSteps(
        fed=fed, resident=resident, gpu_wait=waited, used=used, chunks=run.config.chunks,
        fed_episodes=fed_episodes, resident_episodes=resident_episodes,
    )  # fmt: skip


def resident_step(loader: EpisodeLoader, count: int) -> list[Episode]:
    """The next episodes with all their images in memory; the loader reads nothing ahead of them."""
    episodes = list[Episode]()
    for episode in islice(loader, count):
        _ = episode.support.images, episode.query.images
        episodes.append(episode)
    loader.load_state_dict(loader.state_dict())
    return episodes


def _listed(episodes: Iterator[Episode], seen: list[FedEpisode]) -> Iterator[Episode]:
    """The same episodes; each that is taken is added to a list."""
    for episode in episodes:
        seen.append(FedEpisode(episode.number, len(episode.support), len(episode.query)))
        yield episode


def take_steps(run: TrainingRun, episodes: Iterator[Episode], steps: int) -> tuple[float, float]:
    """Seconds that so many steps take, and those in which the host waited for the GPU's results."""
    synchronize()
    begin, waited = time.perf_counter(), 0.0
    for _ in range(steps):
        waited += run.config.tasks_per_step * run.step(episodes).waited
    synchronize()
    return time.perf_counter() - begin, waited


def draw_shards(folder: Path, *, size: int, images: int) -> Path:
    """Build a shard set of drawn training images, once."""
    out = folder / f"drawn-{size}"
    if not out.exists():
        recipe = Recipe(sizes=(size,), encodings=(Encoding.parse("jpeg:95"),))
        build_shards(TrainingClouds(images=images), out / "clouds", recipe)
    return out
