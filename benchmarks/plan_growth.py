"""How listing and planning grow with the dataset: time, and the peak memory of a fresh process.

    python -m benchmarks.plan_growth --items 10000 100000 1000000 --files 10000 100000

`items` are generated, `files` are empty files in a real folder. Nothing is decoded.
"""

from __future__ import annotations

import json
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.common import run_module
from pipeline.build.plan import make_plan, write_plan
from pipeline.records import ClassRecord, Item, Recipe, Survey
from pipeline.sources.base import Source
from pipeline.sources.folder import FolderSource

CLASSES: Final = 1000
GROWTH_HEADER: Final = (
    "| listing | pictures | shards | CPU s | wall s | peak memory MB |\n|---|---|---|---|---|---|"
)


@dataclass(frozen=True, kw_only=True)
class GeneratedSource(Source):
    """A dataset that is only a listing."""

    items: int

    def survey(self) -> Survey:
        """List items as those of an archive of `class/picture`."""
        classes = tuple(ClassRecord(name=f"n{number:08d}") for number in range(CLASSES))
        return Survey(classes=classes, items=self._items())

    def _items(self) -> Iterator[Item]:
        for number in range(self.items):
            class_id = number * CLASSES // self.items
            name = f"images/n{class_id:08d}/n{class_id:08d}_{number:07d}.JPEG"
            yield Item(name, class_id, "train", "images.tar", number * 110_592, 110_000)


def print_plan_cost(kind: str, items: int, folder: Path) -> None:
    """Plan in this process and print what it cost, as JSON."""
    source: Source = GeneratedSource(name="generated", root=folder, items=items)
    if kind == "files":
        source = FolderSource(root=folder)
    wall, cpu = time.perf_counter(), time.process_time()
    plan = make_plan(source.name, source.survey(), Recipe())
    write_plan(plan, folder.parent / "plan.parquet")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert plan.items.num_rows == items
    about = {"kind": kind, "items": items, "shards": plan.shards, "cpu": cpu, "wall": wall}
    print(json.dumps(about | {"megabytes": peak_megabytes()}))


def peak_megabytes() -> float:
    """The most memory this process ever held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure_growth(kind: str, items: int) -> dict[str, float]:
    """What `print_plan_cost` prints in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        for number in range(items if kind == "files" else 0):
            file = root / f"class {number % CLASSES:04d}" / f"picture {number:07d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return run_module("benchmarks.plan_growth", "--one", kind, items, folder)


def growth_row(figures: dict[str, float]) -> str:
    """A line of the table below GROWTH_HEADER."""
    return (
        f"| {figures['kind']} | {figures['items']:,} | {figures['shards']} | {figures['cpu']:.2f} "
        f"| {figures['wall']:.2f} | {figures['megabytes']:.0f} |"
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--items", type=int, nargs="*", default=[10**4, 10**5, 10**6])
    parser.add_argument("--files", type=int, nargs="*", default=[10**4, 10**5])
    parser.add_argument("--one", nargs=3, metavar=("KIND", "ITEMS", "FOLDER"))
    arguments = parser.parse_args()
    if arguments.one:
        kind, items, folder = arguments.one
        print_plan_cost(kind, int(items), Path(folder) / "root")
        return
    print(GROWTH_HEADER)
    for kind in ("items", "files"):
        for items in getattr(arguments, kind):
            print(growth_row(measure_growth(kind, items)), flush=True)


if __name__ == "__main__":
    main()
