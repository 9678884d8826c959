"""F8: a video that is cut, has lost its index or is full of noise never ends a build: frames are read or listed."""

from __future__ import annotations

import random
from pathlib import Path
from unittest import SkipTest

from pipeline.build.builder import Run, build_shards
from pipeline.index import Dataset
from pipeline.records import Encoding, Recipe
from pipeline.sources.orbit.source import OrbitSource
from tests.faults.builds import row
from tests.faults.rows import FaultRow
from tests.fuzz.mutations import mutate_bytes
from tests.pipeline.sources.orbit.tree import make_orbit

SHORT = 6
LONG = 100
SEED = 8
FRAMES = 5
RECIPE = Recipe(sizes=(16,), encodings=(Encoding.parse("raw"),))


def run(points: int, folder: Path) -> FaultRow:
    """Build one object from so many damaged videos, and find every frame in the index or among the left out."""
    try:
        from tests.pipeline.sources.orbit.clips import write_clip  # noqa: PLC0415 - needs PyAV
    except ImportError as error:
        raise SkipTest(f"videos need the extra [video] ({error})") from error
    root = folder / "source"
    make_orbit(root, users={"test": ("P177",)}, objects=("bag",), clean=1, annotations=False)
    place = root / "test/P177/bag/clean"
    whole = [
        write_clip(folder / "late.mp4", FRAMES).read_bytes(),
        write_clip(folder / "early.mp4", FRAMES, container={"movflags": "faststart"}).read_bytes(),
        write_clip(folder / "other.mp4", FRAMES, codec="mpeg4").read_bytes(),
    ]
    names = [f"P177--bag--clean--bad{number}" for number in range(points)]
    for number, name in enumerate(names):
        (place / f"{name}.mp4").write_bytes(_damage(whole, number))
    report = build_shards(OrbitSource(root=root), folder / "out", RECIPE, Run(workers=1))
    manifest = Dataset.open(folder / "out").manifest
    index = Dataset.open(folder / "out").index
    groups = [index.words["group"][code] for code in index["group"]]
    listed = " ".join(entry.name for entry in manifest.quarantined)
    problems = [f"{name} is nowhere" for name in names if name not in groups and name not in listed]
    read = sum(group in names for group in groups)
    figure = (
        f"{points} damaged videos, 0 aborts: {read} frames read, {len(report.rejected)} frames or videos "
        "left out with the reason"
    )
    return row(points, problems, figure)


def _damage(whole: list[bytes], number: int) -> bytes:
    """Without its index, cut at a random place, or with random changes."""
    generator = random.Random(SEED * 10_000 + number)
    data = whole[number // 3 % len(whole)]
    if number % 3 == 0:
        return data[: data.index(b"moov") - 4] + data[data.index(b"moov") + generator.randrange(400) :]
    if number % 3 == 1:
        return data[: generator.randrange(len(data))]
    return mutate_bytes(data, generator)
