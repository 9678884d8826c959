"""The results of all parts, as JSON and as Markdown for RESULTS.md."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from benchmarks.common import TableRow, describe_run, markdown_table
from benchmarks.gpu.runner import PartResult
from benchmarks.gpu.scale import MeasureScale

DETAILS: Final = {"_largest_kernels": "largest kernels", "_synchronising_places": "synchronisations"}
"""Fields of a row that are no cells of the table, and what they are called below it."""


@dataclass(slots=True)
class GpuReport:
    """A file of results that is complete after each row."""

    file: Path | None
    machine: str
    """Date, commit, GPU, versions and command, as one line."""
    parts: dict[str, PartResult] = field(default_factory=dict)

    def keep(self, result: PartResult) -> None:
        """Take a part's result so far, and write the files again."""
        self.parts[result.name] = result
        if self.file is None:
            return
        values = {"machine": self.machine, "parts": {name: asdict(one) for name, one in self.parts.items()}}
        self.file.write_text(json.dumps(values, indent=1, default=str) + "\n", encoding="utf-8")
        self.file.with_suffix(".md").write_text(self.markdown(), encoding="utf-8")

    def markdown(self) -> str:
        """All tables, and what was left out and why."""
        lines = [self.machine, ""]
        for result in self.parts.values():
            if result.rows:
                cells = [_cells(row) for row in result.rows]
                lines += [f"#### {result.name}, {result.seconds:.0f} s", "", markdown_table(cells), ""]
                lines += [*_details(result.rows), ""]
        remarks = [f"- {one.name}: {one.remark}" for one in self.parts.values() if one.remark]
        if remarks:
            lines += ["Left out:", "", *remarks, ""]
        return "\n".join(lines)


def _cells(row: TableRow) -> TableRow:
    return {name: value for name, value in row.items() if not name.startswith("_")}


def _details(rows: list[TableRow]) -> list[str]:
    lines = []
    for row in rows:
        for name, title in DETAILS.items():
            if row.get(name):
                texts = row[name]
                if isinstance(texts, dict):
                    texts = [f"{place} {count}" for place, count in texts.items()]
                named = ", ".join(str(value) for value in list(_cells(row).values())[:3])
                lines.append(f"- {title} of {named}: {'; '.join(texts)}")
    return lines


def describe_machine(scale: MeasureScale, commit: str) -> str:
    """Date, commit, GPU and driver, CPU, versions and command."""
    versions = f"torch {torch.__version__}"
    if scale.gpu:
        properties = torch.cuda.get_device_properties()
        versions += (
            f", CUDA {torch.version.cuda}, cuDNN {_cudnn_version()}, driver {_driver()}, "
            f"{properties.name} with {properties.total_memory / 2**30:.0f} GiB"
        )
    else:
        versions += ", no GPU"
    described = describe_run("benchmarks.gpu", versions)
    return described.replace("commit ,", f"commit {commit or 'unknown'},")


def _cudnn_version() -> int:
    cudnn: Any = torch.backends.cudnn
    return int(cudnn.version() or 0)


def _driver() -> str:
    """The driver's version by nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"
