"""How opening, planning and the first episode grow with the index, each in a fresh process.

    REAL_DATA=folder python -m benchmarks.loader_growth --rows 10000 1300000 10000000

The rows are generated; their bytes are those of the 10,000 images of benchmarks/loader_data.py again and
again, so real images are read.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.common import ROOT, run_module
from benchmarks.loader_data import IMAGES_PER_CLASS, shard_set
from benchmarks.plan_growth import CLASSES, peak_megabytes
from pipeline.build.plan import PARQUET_OPTIONS
from pipeline.index import DatasetManifest
from pipeline.layout import DatasetLayout
from pipeline.records import ClassRecord, ShardFile
from pipeline.samplers.fixed import Fixed
from pipeline.samplers.meta_dataset import MetaDataset
from pipeline.shardset import ShardSet

GROWTH_SIZE: Final = 224
PLANS: Final = 300
ROW_COUNTS: Final = (10**4, 10**5, 10**6, 1_300_000, 10**7)
LOADER_GROWTH_HEADER: Final = (
    "| rows | to open, s | sampler, s | Fixed, ms a plan | MetaDataset, ms a plan "
    "| first episode, s from opening | memory MB, the index's | in all |\n|---|---|---|---|---|---|---|---|"
)


def write_dataset(rows: int, out: Path) -> None:
    """Write a dataset of so many rows, with the tars of the real one."""
    real = DatasetLayout(shard_set("jpeg") / "photographs")
    manifest, table = DatasetManifest.read(real.manifest), pq.read_table(real.index)
    classes = min(CLASSES, rows // IMAGES_PER_CLASS)
    locations = [name for name in table.column_names if name.rpartition("_")[2].isdigit()]
    taken = table.take(pa.array(np.arange(rows) % len(table)))
    columns = {name: taken[name] for name in table.column_names}
    columns["key"] = pa.array(np.arange(rows).astype(table["key"].type.to_pandas_dtype()))
    ids = np.arange(rows) * classes // rows
    columns["class_id"] = pa.array(ids.astype(table["class_id"].type.to_pandas_dtype()))
    assert {"shard", *locations} <= set(columns)
    layout = DatasetLayout(out / "photographs")
    layout.root.mkdir()
    pq.write_table(pa.table(columns), layout.index, **PARQUET_OPTIONS)
    for size in manifest.recipe.sizes:
        (layout.root / str(size)).symlink_to(real.root / str(size))
    grown = replace(
        manifest,
        samples=rows,
        splits={"": rows},
        shards={size: _holding(files, rows) for size, files in manifest.shards.items()},
        classes=tuple(ClassRecord(name=f"class-{number:04d}") for number in range(classes)),
        index_sha256=hashlib.sha256(layout.index.read_bytes()).hexdigest(),
    )
    layout.manifest.write_text(grown.text(), encoding="utf-8")


def _holding(files: Sequence[ShardFile], rows: int) -> tuple[ShardFile, ...]:
    """The tars as if they held so many samples: a manifest that contradicts itself does not open."""
    *others, last = (replace(file, samples=1) for file in files)
    return (*others, replace(last, samples=rows - len(others)))


def measure_growth(root: Path) -> dict[str, float]:
    """Open, plan and read in this process, after all imports."""
    from pipeline.loader.loader import EpisodeLoader  # noqa: PLC0415 - the other modes need no torch

    before, begin = peak_megabytes(), time.perf_counter()
    opened = ShardSet.open(root)
    figures = {"open": time.perf_counter() - begin, "index": peak_megabytes() - before}
    begun = time.perf_counter()
    sampler = MetaDataset(opened, split="")
    figures["sampler"] = time.perf_counter() - begun
    with EpisodeLoader(opened, sampler, image_size=GROWTH_SIZE) as loader:
        episode = next(iter(loader))
        figures["images"] = len(episode.support.images)
        figures["first"] = time.perf_counter() - begin
    fixed = Fixed(opened, split="", way=20, shot=5, query=5)
    for name, plans in (("fixed", fixed), ("meta", sampler)):
        begun = time.perf_counter()
        for number in range(PLANS):
            plans[number]
        figures[name] = (time.perf_counter() - begun) / PLANS * 1000
    return figures | {"rows": len(next(iter(opened)).index), "megabytes": peak_megabytes()}


def growth_in_child(rows: int) -> dict[str, float]:
    """The figures of `measure_growth` in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.loader_growth", "--at", folder]
        subprocess.run([*command, "--rows", str(rows)], cwd=ROOT, check=True)
        return run_module("benchmarks.loader_growth", "--at", folder)


def format_row(figures: dict[str, float]) -> str:
    """A line of the table below LOADER_GROWTH_HEADER."""
    return (
        f"| {figures['rows']:,} | {figures['open']:.2f} | {figures['sampler']:.3f} | {figures['fixed']:.2f} "
        f"| {figures['meta']:.2f} | {figures['first']:.2f} | {figures['index']:,.0f} "
        f"| {figures['megabytes']:,.0f} |"
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--at", type=Path, metavar="FOLDER", help="one step: write, or measure")
    arguments = parser.parse_args()
    if arguments.at and arguments.rows:
        write_dataset(arguments.rows[0], arguments.at)
    elif arguments.at:
        print(json.dumps(measure_growth(arguments.at)))
    else:
        shard_set("jpeg")
        print(LOADER_GROWTH_HEADER)
        for rows in arguments.rows or ROW_COUNTS:
            print(format_row(growth_in_child(rows)), flush=True)


if __name__ == "__main__":
    main()
