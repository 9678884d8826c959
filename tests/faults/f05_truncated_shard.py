"""F5: a truncated shard is detected, by verify and by who opens it."""

from __future__ import annotations

from pathlib import Path

from pipeline.verify.__main__ import verify
from tests.faults.builds import row
from tests.faults.damage import DamagedSet, damages
from tests.faults.rows import FaultRow

SHORT = 20
LONG = 400
OPENED = (".tar", ".parquet", "dataset.json")  # the ends of the names of the files that readers open


def run(points: int, folder: Path) -> FaultRow:
    """Cut a file of each kind in turn at a random length; tars, index and manifest must not open then."""
    damaged, problems, opened = DamagedSet.build(folder), [], 0
    for _, (path, choice) in zip(range(points), damages(damaged.root, seed=400), strict=False):
        original = path.read_bytes()
        length = choice.randrange(len(original))
        path.write_bytes(original[:length])
        where = f"{path.relative_to(damaged.root)} cut to {length} of {len(original)} bytes"
        if verify(damaged.root, workers=1).ok:
            problems.append(f"{where}: verify finds nothing")
        if path.name.endswith(OPENED):
            opened += 1
            if not damaged.opening_problem():
                problems.append(f"{where}: opens")
        path.write_bytes(original)
    if damaged.opening_problem() or not verify(damaged.root, workers=1).ok:
        problems.append("the whole set is refused")
    figure = f"{points} cuts for verify, {opened} of them of tars, index or manifest for who opens the set"
    return row(points, problems, figure)
