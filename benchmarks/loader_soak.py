"""2,000 episodes of every size in one process: memory, descriptors and threads must stay flat.

    REAL_DATA=folder python -m benchmarks.loader_soak --episodes 2000 --decoder turbo

The slope is that of a straight line through the process's memory at every hundredth episode. The first fifth
is left out: until then some sizes of buffers are new.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.loader_data import SHARD_ENCODINGS, shard_set
from pipeline.constants import DEFAULT_SIZES
from pipeline.loader.loader import EpisodeLoader
from pipeline.samplers.meta_dataset import MetaDataset
from pipeline.shardset import ShardSet

LOOK_EVERY: Final = 100  # episodes between two measurements
SETTLING_SHARE: Final = 0.2  # of the run
SOAK_HEADER: Final = (
    "| decoder | px | stored | episodes | images | minutes | MB at first | MB at last "
    "| slope, MB per 100 episodes | descriptors | threads |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def megabytes() -> float:
    """The memory of this process now, without pages of files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def resources() -> tuple[float, int, int]:
    """Memory, file descriptors and threads of this process now."""
    own = Path("/proc/self")
    return megabytes(), len(list((own / "fd").iterdir())), len(list((own / "task").iterdir()))


def soak_row(decoder: str, size: int, encoding: str, episodes: int) -> str:
    """Read the episodes; returns a row of the table."""
    opened = ShardSet.open(shard_set(encoding))
    sampler = MetaDataset(opened, split="", max_support=500)
    looks, begin = [], time.monotonic()
    with EpisodeLoader(opened, sampler, image_size=size, decoder=decoder, threads=2) as loader:  # type: ignore[arg-type]
        for number, episode in zip(range(1, episodes + 1), loader, strict=False):
            for _ in (*episode.support.rest, *episode.query):
                pass
            del episode
            if number % LOOK_EVERY == 0:
                looks.append(resources())
        images = loader.stats.images
    settled = looks[int(len(looks) * SETTLING_SHARE) :]
    memory, descriptors, threads = map(np.array, zip(*settled, strict=True))
    slope = np.polyfit(np.arange(len(memory)), memory, 1)[0] if len(memory) > 1 else float("nan")
    minutes = (time.monotonic() - begin) / 60
    return (
        f"| {decoder} | {size} | {encoding} | {episodes:,} | {images:,} | {minutes:.1f} "
        f"| {memory[0]:,.0f} | {memory[-1]:,.0f} | {slope:.2f} "
        f"| {descriptors.min()}-{descriptors.max()} | {threads.min()}-{threads.max()} |"
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--decoder", choices=["turbo", "dali"], default="turbo")
    parser.add_argument("--size", type=int, choices=DEFAULT_SIZES, default=DEFAULT_SIZES[0])
    parser.add_argument("--encoding", choices=SHARD_ENCODINGS, default="jpeg")
    arguments = parser.parse_args()
    print(SOAK_HEADER)
    print(soak_row(arguments.decoder, arguments.size, arguments.encoding, arguments.episodes))


if __name__ == "__main__":
    main()
