"""The records of a run: a line per step, `metrics.jsonl`, TensorBoard where it is installed, a curve."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from pipeline.errors import IntegrityError
from pipeline.layout import LineWriter, write_atomically
from pipeline.settings import parse_json, typed

METRICS_FILE: Final = "metrics.jsonl"
CURVE_FILE: Final = "curve.png"
CURVE_POINTS: Final = 20  # the curve's points at most: means over stretches of the run


class _RecordKey(TypedDict):
    """What every record has."""

    kind: Literal["step", "validation"]
    tasks: int


class _RecordFields(_RecordKey, total=False):
    """What the curve is drawn from."""

    accuracy: float


class RunJournal:
    """Appends records to a run's folder; a resumed run continues the same file."""

    def __init__(
        self, folder: Path, *, quiet: bool = False, done: int = 0, validated: int | None = None
    ) -> None:
        """`done`: the tasks of the checkpoint that the run resumes from; later records are dropped.

        validated: its tasks at the last validation (done); the records of later validations are dropped.
        """
        self._quiet = quiet
        self._board = None
        if quiet:
            return
        self._path = folder / METRICS_FILE
        self._keep(done, done if validated is None else validated)
        self._file = LineWriter(self._path)
        self._board = _open_tensorboard(folder)

    def write(self, kind: str, tasks: int, values: Mapping[str, Any]) -> None:
        """Append a record; `kind` is step or validation."""
        if self._quiet:
            return
        record = {"kind": kind, "tasks": tasks, "time": round(time.time(), 3), **values}
        self._file.write(json.dumps(record))
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, tasks)

    def say(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def _keep(self, done: int, validated: int) -> None:
        """Drop the records of later tasks, which come again, and what is no record."""
        records, damaged = _parse_records(self._path)
        if damaged:
            self.say(
                f"warning: {damaged:,} of {damaged + len(records):,} lines of {self._path} are damaged; they are left out"
            )
        last = {"step": done, "validation": validated}
        past = (record for record in records if record["tasks"] <= last[record["kind"]])
        kept = "".join(json.dumps(record) + "\n" for record in past).encode()
        if self._path.exists() and self._path.read_bytes() != kept:
            write_atomically(self._path, kept)

    def __enter__(self) -> RunJournal:
        return self

    def __exit__(self, *exception: object) -> None:
        if not self._quiet:
            self._file.close()
        if self._board is not None:
            self._board.close()


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read the records of a run; damaged lines are left out."""
    return _parse_records(folder / METRICS_FILE)[0]


def _parse_records(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The records in a file, and the number of damaged lines; a last line that was cut off is not counted."""
    if not path.exists():
        return [], 0
    *lines, _ = path.read_bytes().split(b"\n")
    records = [record for line in lines if (record := _parse_record(line)) is not None]
    return records, len(lines) - len(records)


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None if there is none."""
    try:
        record = parse_json(line, METRICS_FILE)
        typed(record, _RecordFields, METRICS_FILE)
    except IntegrityError:
        return None
    fields: dict[str, Any] = record
    return fields


def draw_curve(folder: Path) -> Path | None:
    """Draw accuracy over the run as a PNG; None without matplotlib."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError:
        return None
    every = [line for line in read_records(folder) if "accuracy" in line]
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
    drawn = BytesIO()
    figure.savefig(drawn, dpi=120)
    write_atomically(folder / CURVE_FILE, drawn.getvalue())
    return folder / CURVE_FILE


def _open_tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - where it is installed
    except ImportError:
        return None
    return SummaryWriter(str(folder))
