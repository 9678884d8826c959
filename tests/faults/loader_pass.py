"""A pass of the loader as a command: prints a hash of the pixels of a few episodes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Final

from pipeline.loader.loader import EpisodeLoader
from pipeline.samplers import Fixed
from pipeline.shardset import ShardSet

EPISODES: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Stream episodes of the shards that the only argument names."""
    (shards,) = argv or ()
    opened, digest = ShardSet.open(shards), hashlib.sha256()
    sampler = Fixed(opened, split="train", way=3, shot=2, query=1)
    with EpisodeLoader(opened, sampler, image_size=32, h=4, threads=1) as loader:
        for episode in islice(loader, EPISODES):
            for images in (episode.support.images, episode.query.images):
                digest.update(images.contiguous().numpy().tobytes())
    sys.stdout.write(digest.hexdigest() + "\n")
    return 0
