"""How opening, planning and the first episode grow with the index, each in a fresh process.

    REAL_DATA=folder python -m benchmarks.loader_growth --rows 10000 1300000 10000000

The rows are generated; their bytes are those of the 10,000 pictures of benchmarks/loader_data.py again
and again, so what is read is real.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.loader_data import PICTURES, shards
from benchmarks.plan_growth import peak_megabytes
from pipeline.build.plan import PARQUET
from pipeline.index import Manifest
from pipeline.layout import Layout
from pipeline.records import ClassRecord
from pipeline.samplers.fixed import Fixed
from pipeline.samplers.meta_dataset import MetaDataset
from pipeline.shardset import ShardSet

ROOT: Final = Path(__file__).resolve().parents[1]
CLASSES: Final = 1000
SIZE: Final = 224
PLANS: Final = 300
ROWS: Final = (10**4, 10**5, 10**6, 1_300_000, 10**7)
HEADER: Final = (
    "| rows | to open, s | sampler, s | Fixed, ms a plan | MetaDataset, ms a plan "
    "| first episode, s from opening | memory MB, the index's | in all |\n|---|---|---|---|---|---|---|---|"
)


def generate(rows: int, out: Path) -> None:
    """A dataset of so many rows, with the tars of the real one."""
    real = Layout(shards("jpeg") / "photographs")
    manifest, table = Manifest.read(real.manifest), pq.read_table(real.index)
    classes = min(CLASSES, rows // PICTURES)
    places = [name for name in table.column_names if name.rpartition("_")[2].isdigit()]
    taken = table.take(pa.array(np.arange(rows) % len(table)))
    columns = {name: taken[name] for name in table.column_names}
    columns["key"] = pa.array(np.arange(rows).astype(table["key"].type.to_pandas_dtype()))
    ids = np.arange(rows) * classes // rows
    columns["class_id"] = pa.array(ids.astype(table["class_id"].type.to_pandas_dtype()))
    assert {"shard", *places} <= set(columns)
    layout = Layout(out / "photographs")
    layout.root.mkdir()
    pq.write_table(pa.table(columns), layout.index, **PARQUET)
    for size in manifest.recipe.sizes:
        (layout.root / str(size)).symlink_to(real.root / str(size))
    made = replace(
        manifest,
        samples=rows,
        splits={"": rows},
        classes=tuple(ClassRecord(name=f"class-{number:04d}") for number in range(classes)),
        index_sha256=hashlib.sha256(layout.index.read_bytes()).hexdigest(),
    )
    layout.manifest.write_text(made.text(), encoding="utf-8")


def measured(root: Path) -> dict[str, float]:
    """Open, plan and read in this process, all imports done."""
    from pipeline.loader.loader import EpisodeLoader  # noqa: PLC0415 - the other modes need no torch

    before, begin = peak_megabytes(), time.perf_counter()
    opened = ShardSet.open(root)
    found = {"open": time.perf_counter() - begin, "index": peak_megabytes() - before}
    begun = time.perf_counter()
    sampler = MetaDataset(opened, split="")
    found["sampler"] = time.perf_counter() - begun
    with EpisodeLoader(opened, sampler, image_size=SIZE) as loader:
        episode = next(iter(loader))
        found["images"] = len(episode.support.images)
        found["first"] = time.perf_counter() - begin
    fixed = Fixed(opened, split="", way=20, shot=5, query=5)
    for name, plans in (("fixed", fixed), ("meta", sampler)):
        begun = time.perf_counter()
        for number in range(PLANS):
            plans[number]
        found[name] = (time.perf_counter() - begun) / PLANS * 1000
    return found | {"rows": len(next(iter(opened)).index), "megabytes": peak_megabytes()}


def growth(rows: int) -> dict[str, float]:
    """What `measured` says in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.loader_growth", "--at", folder]
        subprocess.run([*command, "--rows", str(rows)], cwd=ROOT, check=True)
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return dict(json.loads(done.stdout))


def row(found: dict[str, float]) -> str:
    """A line of the table below HEADER."""
    return (
        f"| {found['rows']:,} | {found['open']:.2f} | {found['sampler']:.3f} | {found['fixed']:.2f} "
        f"| {found['meta']:.2f} | {found['first']:.2f} | {found['index']:,.0f} "
        f"| {found['megabytes']:,.0f} |"
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rows", type=int, nargs="+")
    parser.add_argument("--at", type=Path, metavar="FOLDER", help="one step: generate, or measure")
    arguments = parser.parse_args()
    if arguments.at and arguments.rows:
        generate(arguments.rows[0], arguments.at)
    elif arguments.at:
        print(json.dumps(measured(arguments.at)))
    else:
        shards("jpeg")
        print(HEADER)
        for rows in arguments.rows or ROWS:
            print(row(growth(rows)), flush=True)


if __name__ == "__main__":
    main()
