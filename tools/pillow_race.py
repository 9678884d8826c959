"""Times builds of Pillow against one another on this machine, without installing them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

ROUNDS: Final = (
    3  # of about 0.3 s for each wheel; wheels take turns, so that a busy machine disturbs all alike
)
BENCH: Final = """
import io, json, statistics, time
from PIL import Image
noise = [Image.effect_noise((1080, 1080), 40 + 10 * band) for band in range(3)]
frame = Image.merge("RGB", noise)
def cost(filter):
    begin = time.process_time()
    frame.resize((224, 224), filter)
    return 1000 * (time.process_time() - begin)
filters = (Image.Resampling.LANCZOS, Image.Resampling.BILINEAR)
end = time.monotonic() + 0.3
costs = [[cost(filter) for filter in filters]]
while time.monotonic() < end or len(costs) < 4:
    costs.append([cost(filter) for filter in filters])
print(json.dumps([statistics.median(column) for column in zip(*costs)]))
"""


class TimedWheel(NamedTuple):
    """A wheel that runs here, with its CPU times."""

    flavour: str
    wheel: Path
    lanczos_ms: float
    bilinear_ms: float


def fastest(python: Path, candidates: dict[str, Path]) -> list[TimedWheel]:
    """The wheels that load and resize here, fastest LANCZOS first; rounds alternate."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = {flavour: Path(temporary) / flavour for flavour in candidates}
        for flavour, wheel in candidates.items():
            zipfile.ZipFile(wheel).extractall(folders[flavour])
        rounds = [{name: _time(python, folders[name]) for name in candidates} for _ in range(ROUNDS)]
    timed: list[TimedWheel] = []
    for flavour, wheel in candidates.items():
        results = [result for one in rounds if (result := one[flavour]) is not None]
        if results:
            timed.append(TimedWheel(flavour, wheel, *map(min, zip(*results, strict=True))))
        else:  # built against libraries that have gone: the next set-up builds it again
            shutil.rmtree(wheel.parent)
    return sorted(timed, key=lambda candidate: candidate.lanczos_ms)


def _time(python: Path, folder: Path) -> list[float] | None:
    """CPU milliseconds of LANCZOS and BILINEAR, 1080 -> 224; None if the build does not run."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [str(python), "-c", BENCH]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=120)
    return [float(cost) for cost in json.loads(done.stdout)] if done.returncode == 0 else None
