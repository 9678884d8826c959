"""The kinds of work of a soak: how each is started, how it goes on, and what must be equal in the end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from learners import checkpoint
from learners.runs import LAST_CHECKPOINT
from tests.images import tree_hashes
from tests.soak.leaks import files_in
from tests.soak.settings import build_command, evaluate_command, read_command, resume_command, train_command

EqualParts = Mapping[str, object]


@dataclass(frozen=True)
class SoakJob:
    """Work that ends in the same result however often it is disturbed."""

    name: str
    command: Callable[[Path], Sequence[str]]
    """The command that begins in a folder, or goes on there."""
    result: Callable[[Path], EqualParts]
    """The parts of the folder that must be equal, by name."""


def soak_jobs(shards: Path, run: Path) -> list[SoakJob]:
    """The jobs; `shards` and `run` are what the ones before the others made, undisturbed."""
    return [
        SoakJob("build", build_command, tree_hashes),
        SoakJob("read", lambda out: read_command(shards, out), tree_hashes),
        SoakJob("train", lambda out: _train_or_resume(shards, out), run_parts),
        SoakJob("evaluate", lambda out: evaluate_command(shards, run, out), evaluation_parts),
    ]


def _train_or_resume(shards: Path, out: Path) -> Sequence[str]:
    return resume_command(out) if (out / LAST_CHECKPOINT).exists() else train_command(shards, out)


def run_parts(run: Path) -> EqualParts:
    """Every tensor of both checkpoints, losses and accuracies, and the names of all files."""
    parts: dict[str, object] = {"files": files_in(run)}
    for file in sorted(run.glob("*.safetensors")):
        tensors, _ = checkpoint.load(file)
        for name, tensor in tensors.items():
            digest = hashlib.sha256(tensor.contiguous().numpy().tobytes())
            parts[f"{file.name} {name}"] = digest.hexdigest()
    for number, line in enumerate((run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
        record = json.loads(line)
        parts[f"line {number}"] = [record.get(key) for key in ("kind", "tasks", "loss", "accuracy")]
    return parts


def evaluation_parts(results: Path) -> EqualParts:
    """The scores, the right answers of each task, and the names of all files."""
    parts: dict[str, object] = {"files": files_in(results)}
    evaluation = json.loads((results / "evaluation.json").read_text(encoding="utf-8"))
    parts["scores"] = evaluation["scores"]
    tasks = [
        json.loads(line) for line in (results / "tasks-0.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    parts |= {f"task {task['number']}": task["correct"] for task in tasks}
    return parts


def differences(found: EqualParts, expected: EqualParts) -> list[str]:
    """The names of parts that differ, or that only one of the two has."""
    names = found.keys() | expected.keys()
    return sorted(name for name in names if found.get(name) != expected.get(name))
