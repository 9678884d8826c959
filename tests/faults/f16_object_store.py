"""F16: an object store that fails, resets, stalls, cuts and changes its answers: the same episodes, no wrong byte."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.build.builder import Run, build_shards
from pipeline.errors import SourceMissing
from pipeline.loader.loader import EpisodeLoader
from pipeline.records import Encoding, Recipe
from pipeline.samplers.fixed import Fixed
from pipeline.shardset import ShardSet
from pipeline.sources.folder import FolderSource
from pipeline.store.fetch import RetryPolicy
from pipeline.store.local import locate_samples
from pipeline.store.remote import DOWNLOAD_THREADS
from tests.faults.rows import FaultRow
from tests.images import fill_class_folders
from tests.pipeline.store.faulty_server import FAULTS, FaultyServer

SHORT = 16
LONG = 240
SHARE: Final = 0.2  # of the answers are faults
KINDS: Final = (*FAULTS, "hang up", "garbage", "two lengths", "broken chunks")
SIZE: Final = 48  # pixels
CLASSES: Final = {f"class-{number:02d}": 8 for number in range(20)}
SHARD_SAMPLES: Final = 4  # so few that there are many requests
EPISODES_A_CACHE: Final = 4  # then all bytes are there, and an empty cache asks for them again
PATIENCE: Final = RetryPolicy(timeout=0.5, pause=0.01, longest_pause=0.1, retries=20)
STALLED: Final = RetryPolicy(timeout=0.5, pause=0.01, retries=1)


def run(points: int, folder: Path) -> FaultRow:
    """Compare episodes from a faulty server with those of the local shards, then meet a server that only stalls."""
    source = FolderSource(name="pets", root=fill_class_folders(folder / "pictures", CLASSES))
    recipe = Recipe(sizes=(SIZE,), encodings=(Encoding.parse("jpeg:95"),), shard_samples=SHARD_SAMPLES)
    build_shards(source, folder / "www" / "pets", recipe, Run(workers=1))
    rounds = -(-points // EPISODES_A_CACHE)
    wanted = list(digests(ShardSet.open(folder / "www" / "pets"), 0, points))
    with FaultyServer(folder / "www") as server:
        quiet, sound = compare(server, folder / "quiet", wanted, rounds)
    with FaultyServer(folder / "www", share=SHARE, kinds=KINDS) as server:
        faulty, same = compare(server, folder / "faulty", wanted, rounds)
        faults = server.made.total()
    stalls = stalled_requests(folder)
    waited = stalls <= DOWNLOAD_THREADS * (STALLED.retries + 1)
    problems = 2 * points - sound - same + (not waited)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(server.made.items()))
    return FaultRow(
        tried=2 * points + 1,
        failed=problems,
        figure=f"{same} of {points} episodes as on the local disk through {faults} faults ({kinds}); "
        f"{quiet:.1f} episodes a second without and {faulty:.1f} with them; "
        f"a server that stalls: {stalls} requests before all of {sum(CLASSES.values())} samples had failed",
    )


def digests(shards: ShardSet, first: int, count: int) -> Iterator[str]:
    """The sha256 of the pixels and labels of so many episodes from `first` on."""
    sampler = Fixed(shards, split="", way=5, shot=3, query=3, seed=0)
    with EpisodeLoader(shards, sampler, image_size=SIZE, h=8, threads=2, start=first) as loader:
        for episode in islice(loader, count):
            digest = sha256()
            for side in (episode.support, episode.query):
                digest.update(side.images.numpy().tobytes())
                digest.update(np.asarray(side.labels).tobytes())
            yield digest.hexdigest()


def compare(server: FaultyServer, cache: Path, wanted: list[str], rounds: int) -> tuple[float, int]:
    """Episodes a second, and how many are the wanted ones, over as many empty caches as there are rounds."""
    begin, same = time.monotonic(), 0
    for number in range(rounds):
        first = number * EPISODES_A_CACHE
        server.asked.clear()  # of the attempt at a range depends whether it fails
        with suppress(SourceMissing):
            shards = ShardSet.open(f"{server.url}/pets", cache=cache / str(number), patience=PATIENCE)
            part = wanted[first : first + EPISODES_A_CACHE]
            same += sum(map(str.__eq__, part, digests(shards, first, len(part))))
    return len(wanted) / (time.monotonic() - begin), same


def stalled_requests(folder: Path) -> int:
    """How many requests are made before each sample, announced alone, has failed; none may come."""
    with FaultyServer(folder / "www") as server:
        shards = ShardSet.open(f"{server.url}/pets", cache=folder / "stalled", patience=STALLED)
        server.always[".tar"] = "stall"
        store = shards.open_store()
        locations = locate_samples(shards["pets"], SIZE, np.arange(sum(CLASSES.values())))
        for at in range(len(locations)):
            store.prefetch(locations.part(at, at + 1))
        for at in range(len(locations)):
            with suppress(SourceMissing):
                store.read(locations, at, [memoryview(bytearray(locations.lengths[at]))])
        store.close()
        return len(server.ranges())
