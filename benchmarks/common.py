"""Shared by several benchmarks: the machine in words, fresh processes, rows and their tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
BILLION: Final = 1e9

TableRow = dict[str, Any]


def is_installed(module: str) -> bool:
    """Whether a module can be imported; only the packages around it are imported to find out."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def git_output(*arguments: str) -> str:
    """The output of a git command on this repository; empty outside of one."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def describe_run(module: str, versions: str) -> str:
    """Date, commit, machine, versions and command; no names of machines or folders."""
    commit = git_output("rev-parse", "--short", "HEAD")
    changes = " and changes" if git_output("status", "--porcelain") else ""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    flags = [word for word in sys.argv[1:] if "/" not in word and word not in ("--data", "--json")]
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, commit {commit}{changes}, "
        f"{cpu} with {os.cpu_count()} cores, Python {platform.python_version()}, {versions}; "
        f"`{' '.join([f'python -m {module}', *flags])}`"
    )


def run_module(module: str, *arguments: object) -> TableRow:
    """Run a module in a fresh process; returns the JSON that it prints."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def synchronize() -> None:
    """Wait until the GPU, if there is one, has done all its work."""
    import torch  # noqa: PLC0415 - most benchmarks need no torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def collect_rows(part: str, rows: Iterable[TableRow], results: TableRow, file: Path | None) -> list[TableRow]:
    """Print the rows of a part as they come, and keep them in `results`, which is the contents of `file`.

    The file is written after each row: a machine that is taken away leaves what was measured.
    """
    collected = results[part] = []
    for row in rows:
        collected.append(row)
        print(row, file=sys.stderr, flush=True)
        if file:
            file.write_text(json.dumps(results, indent=1))
    return collected


def markdown_table(rows: list[TableRow]) -> str:
    """A Markdown table with a column for each key."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = [f"| {' | '.join(key.replace('_', ' ') for key in keys)} |", "|---" * len(keys) + "|"]
    lines += [f"| {' | '.join(format_cell(row.get(key)) for key in keys)} |" for row in rows]
    return "\n".join(lines)


def format_cell(value: object) -> str:
    """Floats in three digits, other values as text."""
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return "" if value is None else str(value)
