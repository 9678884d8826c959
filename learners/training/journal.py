"""The records of a run: a line per step, `metrics.jsonl`, TensorBoard where it is installed, a curve."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch

METRICS_FILE: Final = "metrics.jsonl"
CURVE_FILE: Final = "curve.png"
CURVE_POINTS: Final = 20  # the curve's points at most: means over stretches of the run


class RunJournal:
    """Appends records to a run's folder; a resumed run continues the same file."""

    def __init__(self, folder: Path, *, quiet: bool = False, done: int = 0) -> None:
        """`done`: the tasks of the checkpoint that the run resumes from; later records are dropped."""
        self._quiet = quiet
        self._board = None
        if quiet:
            return
        self._path = folder / METRICS_FILE
        kept = [line for line in read_records(folder) if line["tasks"] <= done]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        self._board = _open_tensorboard(folder)

    def write(self, kind: str, tasks: int, values: Mapping[str, Any]) -> None:
        """Append a record; `kind` is step or validation."""
        if self._quiet:
            return
        record = {"kind": kind, "tasks": tasks, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, tasks)

    def say(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def __enter__(self) -> RunJournal:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._quiet:
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a run; a last line that was cut off is left out."""
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break  # killed while it wrote
    return lines


def memory_mb(device: torch.device) -> float:
    """The peak memory so far, in MB: the GPU's, or this process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def draw_curve(folder: Path) -> Path | None:
    """Draw accuracy over the run as a PNG; None without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    every = read_records(folder)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    steps = [line for line in every if line["kind"] == "step"]
    size = -(-len(steps) // CURVE_POINTS)
    parts = [steps[at : at + size] for at in range(0, len(steps), size)] if steps else []
    axes.plot(
        [part[-1]["tasks"] for part in parts],
        [100 * sum(line["accuracy"] for line in part) / len(part) for part in parts],
        marker="o", label="training episodes",
    )  # fmt: skip
    checks = [line for line in every if line["kind"] == "validation"]
    if checks:
        axes.plot(
            [line["tasks"] for line in checks], [100 * line["accuracy"] for line in checks],
            marker="s", label="validation, mean over datasets",
        )  # fmt: skip
    axes.set(xlabel="episodes trained on", ylabel="accuracy, %", title=folder.name)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(folder / CURVE_FILE, dpi=120)
    return folder / CURVE_FILE


def _open_tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - where it is installed
    except ImportError:
        return None
    return SummaryWriter(str(folder))
