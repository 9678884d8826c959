"""The small dataset, run and evaluation of a soak: each takes seconds, most of them imports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

IMAGE_SIZE: Final = 32  # pixels, stored raw; what is trained on
JPEG_SIZE: Final = 48  # pixels, stored as JPEG
EPISODES: Final = 40  # of one reading pass
CPU: Final = ("--device", "cpu", "--threads", "1")
LEARNER: Final = ("--learner", "protonets", "--backbone", "conv4", "--image-size", str(IMAGE_SIZE))


def build_command(out: Path) -> list[str]:
    """The drawn dataset at two sizes, by two processes."""
    stored = (
        "--sizes",
        f"{IMAGE_SIZE}",
        f"{JPEG_SIZE}",
        "--encode",
        f"{IMAGE_SIZE}=raw",
        f"{JPEG_SIZE}=jpeg:95",
    )
    few = ("--limit-per-class", "10", "--shard-samples", "16", "--workers", "2", "--quiet")
    build = [sys.executable, "-m", "pipeline.build", "--dataset", "demo", "--out", str(out)]
    return [*build, *stored, *few]


def train_command(shards: Path, out: Path) -> list[str]:
    """Sixty steps with a checkpoint every fourth and a validation every twentieth."""
    episodes = ("--way", "4", "--shot", "3", "--query", "3", "--h", "8")
    steps = ("--tasks", "120", "--tasks-per-step", "2", "--save-every", "8")
    validation = ("--validate-every", "40", "--validation-tasks", "2")
    train = [sys.executable, "train.py", "--shards", str(shards), "--out", str(out)]
    return [*train, *LEARNER, *episodes, *steps, *validation, *CPU]


def resume_command(run: Path) -> list[str]:
    return [sys.executable, "train.py", "--resume", str(run)]


def evaluate_command(shards: Path, run: Path, out: Path) -> list[str]:
    """Two hundred tasks of the classes that were held out."""
    tasks = ("--protocol", "fixed", "--shot", "2", "--query", "5", "--tasks", "200")
    evaluate = [sys.executable, "-m", "learners.evaluate", "--shards", str(shards), "--checkpoint", str(run)]
    return [*evaluate, "--out", str(out), *tasks, *CPU]


def read_command(shards: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "tests.soak.reader", str(shards), str(out)]


def serve_command(run: Path) -> list[str]:
    return [sys.executable, "-m", "learners.demo", "--checkpoint", str(run), "--port", "0", "--no-browser"]
