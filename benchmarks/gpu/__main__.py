"""The command line of `python -m benchmarks.gpu`; the package says what it measures."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Final

import torch

import benchmarks.gpu
from benchmarks.gpu.report import GpuReport, describe_machine
from benchmarks.gpu.runner import Measure, MeasuredPart, run_parts
from benchmarks.gpu.scale import MeasureScale

MINUTES: Final = 8.8
LEARNING: Final = ("msgspec", "safetensors", "PIL")  # what learners import, besides torch
LOADING: Final = (*LEARNING, "simplejpeg", "google_crc32c", "pyarrow", "tqdm", "timm")
QUIET_WARNINGS: Final = "h=.* is less than 1.5 for each class"


def _load(name: str) -> Measure:
    measure: Measure = import_module(f"benchmarks.gpu.parts.{name}").measure
    return measure


def _part(name: str, seconds: float, needs: Sequence[str], *, gpu_only: bool = False) -> MeasuredPart:
    return MeasuredPart(name=name, load=partial(_load, name), seconds=seconds, needs=needs, gpu_only=gpu_only)


ALL_PARTS: Final = {  # in order of worth
    part.name: part
    for part in (
        _part("ceilings", 20, ()),
        _part("right", 40, (*LEARNING, "timm")),
        _part("head", 30, LEARNING),
        _part("step", 150, (*LEARNING, "timm")),
        _part("fed", 120, LOADING),
        _part("decode", 40, LOADING),
        _part("race", 20, (*LOADING, "nvidia.dali"), gpu_only=True),
        _part("compiled", 120, (*LEARNING, "timm")),
    )
}


def parse_flags(argv: Sequence[str] | None) -> Namespace:
    """The flags of the command line."""
    parser = ArgumentParser(
        prog="python -m benchmarks.gpu", description=benchmarks.gpu.__doc__, allow_abbrev=False,
        formatter_class=RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for everything ({MINUTES})")
    parser.add_argument("--parts", nargs="+", choices=ALL_PARTS, default=list(ALL_PARTS), metavar="PART")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="little of everything: does it run?")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results as JSON, and as Markdown beside it")
    parser.add_argument("--commit", default="", help="to record where there is no git repository")
    flags = parser.parse_args(argv)
    if flags.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --device cpu --quick shows whether everything runs")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts and print their tables."""
    flags = parse_flags(argv)
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", QUIET_WARNINGS)
        scale = MeasureScale(device=flags.device, quick=flags.quick, scratch=Path(scratch))
        report = GpuReport(flags.out, describe_machine(scale, flags.commit))
        print(report.machine, flush=True)
        run_parts([ALL_PARTS[name] for name in flags.parts], scale, 60 * flags.minutes, keep=report.keep)
    print(report.markdown())
    return 1 if any(result.trace for result in report.parts.values()) else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    sys.exit(main())
