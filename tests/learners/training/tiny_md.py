"""Small shard sets that have the names of the papers' datasets, drawn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch

from pipeline.build.__main__ import main as build
from pipeline.build.builder import Run, build_shards
from pipeline.records import Encoding, Recipe, Split
from tests.learners.evaluate.tiny import Glyphs
from tests.pipeline.sources.orbit.tree import make_orbit

SIDE: Final = 32  # pixels: the least that a set encoder takes
IMAGES: Final = 6  # of each class
CLASSES: Final = 5  # of each split: the least of a task of Meta-Dataset
MD_RECIPE: Final = Recipe(sizes=(SIDE,), encodings=(Encoding.parse("raw"),))
MD_SPLITS: Final[dict[str, Sequence[Split]]] = {
    **dict.fromkeys(
        ("omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi"), ("train", "validation", "test")
    ),
    "ilsvrc_2012_v2": ("train",),
    "mnist": ("train",),
    "mscoco": ("validation", "test"),
    "traffic_sign": ("test",),
}  # fmt: skip


def tiny_md(root: Path, names: Iterable[str] = tuple(MD_SPLITS), *, limit: int | None = None) -> Path:
    """Datasets of MD-v2 by name, a few classes of each split."""
    for name in names:
        splits = [[split] * IMAGES for split in MD_SPLITS[name] for _ in range(CLASSES)]
        recipe = replace(MD_RECIPE, limit_per_class=limit)
        build_shards(Glyphs(name=name, splits=splits), root / name, recipe, Run(workers=1))
    return root


def tiny_orbit(root: Path) -> Path:
    """ORBIT with two training users, one to validate and one to test."""
    users = {"train": ("P100", "P118"), "validation": ("P194",), "test": ("P177",)}
    source = make_orbit(root / "source", users=users, frames=60)
    flags = ["--dataset", "orbit", "--source", str(source), "--out", str(root / "orbit"), "--workers", "1"]
    assert build([*flags, "--sizes", str(SIDE), "--encode", f"{SIDE}=raw", "--quiet"]) == 0
    return root / "orbit"


SMALL_RUN: Final = (
    "--backbone", "conv4", "--weights", "random", "--image-size", SIDE, "--tasks-per-step", 2, "--validation-tasks", 1,
    "--threads", 1, "--device", "cpu",
)  # fmt: skip
"""Flags that make a run of a preset small; `--tasks` besides."""


def one_thread() -> Iterator[None]:
    """For a fixture: torch with one thread, since small tensors gain nothing from more, and lose on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_run(*more: object) -> list[str]:
    """A command line of `train.py` with `SMALL_RUN`."""
    return [str(word) for word in (*more, *SMALL_RUN)]
