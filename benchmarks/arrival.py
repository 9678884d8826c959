"""Episodes whose images are still arriving: what a step gains that does not wait for the last one.

    python -m benchmarks.arrival --json arrival.json    half an hour
    python -m benchmarks.arrival --quick                a little of everything: does it run?

Two contenders take turns on the same episodes: `whole` waits for all images of an episode before the first pass, as
training did; `arriving` passes each chunk of networks once its images are there. Two parts, or those of `--parts`:
wait   loader, decoder and engine as they are, but images take a fixed time to read and to pass through the network,
       in which the CPU sleeps: a busy machine changes little, and the share of the decoder is set. `decoding` is that
       time over the time of computing. First the seconds from opening the loader to the end of the first episode,
       then those of an episode after that, and the share of them spent waiting for data
cpu    CPU seconds of an episode that is decoded and computed in earnest, on one thread; with --rotate --flip too
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from benchmarks.common import TableRow, collect_rows, describe_run, markdown_table
from benchmarks.loader_gpu_parts import build_clouds
from learners.learner import MetaLearner
from learners.methods.catalogue import make_learner
from learners.methods.protonets import ProtoNets
from learners.networks import Backbone
from learners.task import Task
from learners.training.components import lite_settings
from learners.training.config import TrainingConfig
from learners.training.tasks import training_task
from pipeline.episodes import LITE_DRAW, EpisodePlan, Side, generator
from pipeline.loader.episode import Episode
from pipeline.loader.loader import EpisodeLoader
from pipeline.pixels import SYMMETRIC
from pipeline.shardset import ShardSet
from pipeline.store.local import LocalStore, OpenShard, SampleLocations, SampleStore

WAYS: Final = 10
DRAWN_IMAGES: Final = 200  # of which episodes are drawn, with repetition
READ_SECONDS: Final = 4e-3  # of an image, in the part wait
GRAPH_PASSES: Final = 3  # a pass forward and backward takes as long as so many forward
H: Final = 40
SLOW_CHUNK: Final = 128  # images; few sleeps, for each ends late on a busy machine
CONTENDERS: Final = ("whole", "arriving")
CASES: Final = {  # images of each side of an episode, in turns; a loader's chunk is 128, and 8 are read ahead
    "512 + 512": (512,), "1024 + 1024": (1024,), "64 + 64 and 896 + 896 in turns": (64, 896),
}  # fmt: skip


@dataclass(frozen=True)
class SizedSampler:
    """Episodes of given sizes in turns: rows and labels are drawn."""

    rows: int
    sizes: tuple[int, ...]
    seed: int = 0

    def __getitem__(self, number: int) -> EpisodePlan:
        size, random = self.sizes[number % len(self.sizes)], generator(self.seed, number)
        sides = (Side(random.integers(0, self.rows, size), random.permutation(size) % WAYS) for _ in range(2))
        support, query = sides
        return EpisodePlan(
            number=number, dataset="clouds", classes=tuple(range(WAYS)), support=support, query=query
        )


class SlowStore(LocalStore):
    """Reads from a disk that takes a fixed time for each image."""

    def open_shards(self, locations: SampleLocations, begin: int, end: int) -> dict[int, OpenShard]:
        time.sleep((end - begin) * READ_SECONDS)
        return super().open_shards(locations, begin, end)


class SlowShards(ShardSet):
    """A shard set on such a disk."""

    def open_store(self, *, mapped: bool = False) -> SampleStore:  # noqa: ARG002
        return SlowStore()


class SlowNetwork(nn.Module):
    """Mean colours, computed in a fixed time for each image."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(len(images) * self.seconds * (GRAPH_PASSES if torch.is_grad_enabled() else 1))
        return images.mean((2, 3)) @ self.weight


def slow_learner(decoding: float, size: int) -> MetaLearner:
    """ProtoNets that take 1 / `decoding` of the reader's time for episodes of so many images a side."""
    passes = size * (1 + GRAPH_PASSES) + min(H, size) * GRAPH_PASSES
    network = SlowNetwork(2 * size * READ_SECONDS / decoding / passes)
    return ProtoNets(Backbone(network, name="slow", dim=3, normalisation=SYMMETRIC))


def episode_task(contender: str, episode: Episode, config: TrainingConfig) -> Task:
    """The task as training makes it, or one that waits for all images first."""
    task = training_task(episode, config)
    return (
        task
        if contender == "arriving"
        else replace(task, images=task.support, queries=[task.joined_queries()])
    )


def compute(contender: str, learner: MetaLearner, episode: Episode, config: TrainingConfig) -> None:
    rng = generator(config.seed, episode.number, LITE_DRAW)
    outcome = learner.gradient(episode_task(contender, episode, config), lite_settings(config), rng)
    float(outcome.loss)
    learner.zero_grad()


def measure_waiting(flags: Namespace) -> Iterator[TableRow]:
    """Seconds of an episode and the share spent waiting, for each size of episodes and speed of the decoder."""
    local = ShardSet.open(build_clouds(flags.scratch / "raw", "raw", 24, DRAWN_IMAGES))
    shards = SlowShards(local.root, local.datasets)
    config = TrainingConfig(shards="", h=H, chunk=SLOW_CHUNK)
    with EpisodeLoader(shards, SizedSampler(DRAWN_IMAGES, (WAYS,)), image_size=24, h=0) as loader:
        compute(CONTENDERS[0], slow_learner(1, WAYS), next(iter(loader)), config)  # imports, first calls
    for (name, sizes), decoding in product(CASES.items(), flags.decoding):
        sampler = SizedSampler(len(local["clouds"].index), sizes)
        learner = slow_learner(decoding, sum(sizes) // len(sizes))
        found: dict[str, list[tuple[float, ...]]] = {contender: [] for contender in CONTENDERS}
        for contender in list(CONTENDERS) * flags.rounds:
            with EpisodeLoader(shards, sampler, image_size=24, h=0, threads=1) as loader:
                begin, episodes = time.perf_counter(), iter(loader)
                compute(contender, learner, next(episodes), config)
                first, before = time.perf_counter(), loader.stats
                for episode in islice(episodes, flags.episodes):
                    compute(contender, learner, episode, config)
                spent = time.perf_counter() - first
                waiting = (loader.stats - before).waiting
            found[contender].append((first - begin, spent / flags.episodes, waiting / spent))
        row: TableRow = {"images": name, "decoding": decoding}
        for index, column in enumerate(("first_seconds", "seconds", "waiting")):
            for contender in CONTENDERS:
                row[f"{column}_{contender}"] = statistics.median(run[index] for run in found[contender])
        yield row


def measure_cpu(flags: Namespace) -> Iterator[TableRow]:
    """CPU seconds of an episode, and those of `arriving` over those of `whole` in each turn."""
    shards = ShardSet.open(build_clouds(flags.scratch / "jpeg", "jpeg:95", 84, DRAWN_IMAGES))
    augmented: dict[str, Any] = {"rotate": True, "flip": True}
    for name, augmentation in product(("protonets", "simple_cnaps"), ({}, augmented)):
        config = TrainingConfig(shards="", h=H, chunk=40, **augmentation)
        learner = make_learner(name, "efficientnet_b0", weights="random")
        sampler = SizedSampler(len(shards["clouds"].index), (flags.images,))
        spent: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
        for turn in range(flags.rounds + 1):
            for contender in CONTENDERS[:: 1 - 2 * (turn % 2)]:
                begin = time.process_time()
                with EpisodeLoader(shards, sampler, image_size=84, h=0, threads=1, chunk=32) as loader:
                    compute(contender, learner, next(iter(loader)), config)
                if turn:
                    spent[contender].append(time.process_time() - begin)
        ratios = [one / other for other, one in zip(*spent.values(), strict=True)]
        yield {
            "learner": name, "augmentation": "rotate, flip" if augmentation else "none",
            **{f"cpu_seconds_{contender}": statistics.median(values) for contender, values in spent.items()},
            "ratio": statistics.median(ratios), "least": min(ratios), "most": max(ratios),
        }  # fmt: skip


PARTS: Final = {"wait": measure_waiting, "cpu": measure_cpu}


def main() -> None:
    """Measure the parts, and print their tables."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender")
    parser.add_argument("--episodes", type=int, default=3, help="of a turn, after the first one")
    parser.add_argument("--decoding", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--images", type=int, default=100, help="of each side of an episode, in the part cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    if flags.quick:
        flags.rounds, flags.episodes, flags.decoding, flags.images = 1, 1, [2.0], 20
    torch.set_num_threads(1)
    results: TableRow = {"run": describe_run("benchmarks.arrival", f"torch {torch.__version__}")}
    sys.stdout.write(f"{results['run']}\n")
    with tempfile.TemporaryDirectory() as scratch:
        flags.scratch = Path(scratch)
        for part in flags.parts:
            rows = collect_rows(part, PARTS[part](flags), results, flags.json)
            sys.stdout.write(f"\n## {part}\n\n{markdown_table(rows)}\n")


if __name__ == "__main__":
    main()
