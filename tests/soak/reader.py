"""Read episodes and write the hash of each to a file, going on there: `python -m tests.soak.reader SHARDS FOLDER`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pipeline import EpisodeLoader, ShardSet, samplers
from pipeline.command import run_command
from pipeline.layout import write_atomically
from tests.soak.settings import EPISODES, IMAGE_SIZE, JPEG_SIZE

HASH_LETTERS: Final = 64
HASHES: Final = "episodes.txt"


def read_episodes(shards: Path, folder: Path) -> None:
    """Read the episodes that the file lacks; a line that was cut off does not count."""
    folder.mkdir(exist_ok=True)
    file = folder / HASHES
    lines = file.read_text(encoding="ascii").splitlines() if file.exists() else []
    done = [line for line in lines if len(line) == HASH_LETTERS]
    write_atomically(file, "".join(f"{line}\n" for line in done).encode())
    opened = ShardSet.open(shards)
    sampler = samplers.Fixed(opened, split="", way=5, shot=3, query=3)
    with file.open("a", encoding="ascii") as output:
        for size in (IMAGE_SIZE, JPEG_SIZE):
            last = EPISODES // 2 if size == IMAGE_SIZE else EPISODES
            with EpisodeLoader(opened, sampler, image_size=size, device="cpu", threads=1, h=8) as loader:
                while len(done) < last:
                    loader.load_state_dict({"seed": 0, "episode": len(done)})
                    for _, episode in zip(range(last - len(done)), loader, strict=False):
                        digest = hashlib.sha256(episode.support.images.numpy().tobytes())
                        for chunk in episode.query:
                            digest.update(chunk.images.numpy().tobytes())
                        done.append(digest.hexdigest())
                        output.write(done[-1] + "\n")
                        output.flush()


def main(argv: Sequence[str] | None = None) -> int:
    shards, folder = argv or sys.argv[1:]
    read_episodes(Path(shards), Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
