"""F6: a flipped bit is detected, by verify anywhere and by the loader in an image."""

from __future__ import annotations

from pathlib import Path

from pipeline.verify.__main__ import verify
from tests.faults.builds import row
from tests.faults.damage import DamagedSet, damages, flip
from tests.faults.rows import FaultRow

SHORT = 20
LONG = 600


def run(points: int, folder: Path) -> FaultRow:
    """Flip a bit of a file of each kind in turn: verify, opening, or reading all images of a tar must notice."""
    damaged, problems, opened, images = DamagedSet.build(folder), [], 0, 0
    for _, (path, choice) in zip(range(points), damages(damaged.root, seed=600), strict=False):
        original = path.read_bytes()
        place, bit = choice.randrange(len(original)), choice.randrange(8)
        flip(path, place, bit)
        where = f"{path.relative_to(damaged.root)} with bit {bit} of byte {place} flipped"
        if verify(damaged.root, workers=1).ok:
            problems.append(f"{where}: verify finds nothing")
        if path.name in ("dataset.json", "index.parquet"):
            opened += 1
            if not damaged.opening_problem():
                problems.append(f"{where}: opens")
        if path.suffix == ".tar":
            problem, in_image = damaged.reading_problem(path, place)
            images += in_image
            problems += [f"{where}: {problem}"] if problem else []
        path.write_bytes(original)
    figure = (
        f"{points} flips for verify; {images} in images and {opened} in index or manifest for who reads them"
    )
    return row(points, problems, figure)
