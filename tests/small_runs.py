"""Small runs of train.py on the drawn dataset, and the weights that they leave."""

from __future__ import annotations

from pathlib import Path

import torch

from learners import checkpoint
from learners.runs import LAST_CHECKPOINT
from pipeline.build.__main__ import main as build

DEMO_SIDE = 32  # pixels


def small_demo(root: Path) -> Path:
    """The drawn dataset, ten images of a class, raw at 32 pixels."""
    flags = ["--dataset", "demo", "--out", str(root), "--sizes", str(DEMO_SIDE), "--quiet"]
    assert build([*flags, "--encode", f"{DEMO_SIDE}=raw", "--limit-per-class", "10"]) == 0
    return root


def demo_run(shards: Path, out: Path, *more: object) -> list[str]:
    """The command line of four steps of two small episodes; of flags given twice the last one counts."""
    flags = {
        "--shards": shards, "--out": out, "--learner": "protonets", "--backbone": "conv4",
        "--image-size": DEMO_SIDE, "--way": 4, "--shot": 3, "--query": 3, "--h": 8, "--tasks": 8,
        "--tasks-per-step": 2, "--save-every": 2, "--validate-every": 0, "--validation-tasks": 2,
        "--threads": 1, "--device": "cpu",
    }  # fmt: skip
    return [str(word) for pair in flags.items() for word in pair] + [str(word) for word in more]


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The tensors of a run's last checkpoint."""
    return checkpoint.load(out / LAST_CHECKPOINT)[0]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether both have the same tensors, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
