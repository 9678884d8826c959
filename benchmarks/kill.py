"""Kills builds at random moments and starts them again: the end must be the bytes of a build left alone.

    python -m benchmarks.kill --kills 100

Each kill is SIGKILL, half of the time to the whole build, half of the time to its main process alone.
After each one no process may live on, every file that has its final name must already be the right
one, and the dataset must not open before it is complete. Every fourth kill hits a build of its own
that runs beside another one on the same output.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from argparse import ArgumentParser
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PIL import Image

from pipeline.errors import SourceMissing
from pipeline.layout import TEMPORARY, Layout
from pipeline.shardset import ShardSet

ROOT: Final = Path(__file__).resolve().parents[1]
OPTIONS: Final = ("--sizes", "24", "48", "--encode", "24=raw", "48=jpeg:95", "--shard-samples", "8")
PATIENCE: Final = 5.0  # seconds in which every worker must have gone
STEP: Final = 0.002  # seconds between two looks
GRACE: Final = 0.1  # seconds at most between a shard's commit and the blow
SHARDS_TO_LIVE: Final = 9  # a build is hit after fewer new shards than that, of 20


@dataclass
class Tally:
    """What happened."""

    kills: int = 0
    builds: int = 0
    """Undisturbed ends reached, each compared with the reference."""
    moments: Counter[str] = field(default_factory=Counter)
    longest_orphan: float = 0.0
    """Seconds until the last process of a killed build was gone."""
    seconds: float = 0.0

    def row(self) -> str:
        """For benchmarks/RESULTS.md."""
        moments = ", ".join(f"{count} {moment}" for moment, count in self.moments.most_common())
        return (
            f"{self.kills} kills ({moments}), {self.builds} of {self.builds} builds byte-identical, "
            f"last process gone after {self.longest_orphan:.2f} s at most, {self.seconds:.0f} s in all"
        )


def draw_source(path: Path, pictures: int = 160) -> Path:
    """A .tar.gz of four classes, so that the inflated copy in the scratch folder is killed as well."""
    with tarfile.open(path, "w:gz") as archive:
        for number in range(pictures):
            buffer = io.BytesIO()
            side = 150 + number % 50
            Image.effect_noise((side, 120), 50).convert("RGB").save(buffer, "JPEG")
            entry = tarfile.TarInfo(f"noise/class {number % 4}/{number:03d}.jpg")
            entry.size = len(buffer.getvalue())
            archive.addfile(entry, io.BytesIO(buffer.getvalue()))
    return path


def command(source: Path, out: Path, *options: str) -> list[str]:
    """The build under test."""
    build = [sys.executable, "-m", "pipeline.build", "--dataset", "folder", "--quiet"]
    return [*build, "--source", str(source), "--out", str(out), *OPTIONS, *options]


def start(source: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a build as the leader of a process group of its own."""
    return subprocess.Popen(
        command(source, out, *options), cwd=ROOT, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(build: subprocess.Popen[bytes]) -> None:
    """Wait for a build that nobody disturbs."""
    _, errors = build.communicate()
    if build.returncode:
        raise AssertionError(f"exit code {build.returncode}: {errors.decode()}")


def tree(out: Path) -> dict[str, str]:
    """The sha256 of every file that has its final name."""
    files = (path for path in out.rglob("*") if path.is_file() and not is_partial(path, out))
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def is_partial(path: Path, out: Path) -> bool:
    """Whether a file is one that the next build will remove."""
    return path.name.startswith(TEMPORARY) or Layout(out).scratch in path.parents


def moment(out: Path) -> str:
    """How far a killed build had come."""
    layout = Layout(out)
    if not layout.plan.exists():
        return "before the plan"
    if layout.manifest.exists():
        return "after the manifest"
    return "between shards" if _committed(out) else "before the first shard"


def living(group: int) -> list[Path]:
    """The processes of a group that run; those that wait to be reaped do not count."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, owner = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just gone
            continue
        if int(owner) == group and state not in "ZX":
            found.append(status.parent)
    return found


def wait_until_gone(group: int) -> float:
    """The seconds until no process of the group lives."""
    begin = time.monotonic()
    while living(group):
        if time.monotonic() - begin > PATIENCE:
            raise AssertionError(f"processes of group {group} live on after {PATIENCE} s")
        time.sleep(STEP)
    return time.monotonic() - begin


def kill(build: subprocess.Popen[bytes], *, whole: bool) -> float:
    """SIGKILL, to the whole group or to the main process; the seconds until all have gone."""
    if whole:
        os.killpg(build.pid, signal.SIGKILL)
    else:
        build.kill()
    build.communicate()
    return wait_until_gone(build.pid)


def check_state(out: Path, reference: dict[str, str]) -> None:
    """What must hold at any moment: whatever has its name is right, and only a whole set opens."""
    wrong = {name: digest for name, digest in tree(out).items() if reference.get(name) != digest}
    if wrong:
        raise AssertionError(f"files that differ from an undisturbed build's: {sorted(wrong)}")
    if Layout(out).manifest.exists():
        ShardSet.open(out)
        if tree(out) != reference:
            raise AssertionError(f"a manifest and not all files: {sorted(tree(out))}")
        return
    try:
        ShardSet.open(out)
    except SourceMissing:
        return
    raise AssertionError("an unfinished dataset opens")


def torture(folder: Path, kills: int, *, seed: int = 0, workers: int = 2) -> Tally:
    """Kill builds in `folder` so many times. Raises AssertionError at the first thing that is wrong."""
    dice, tally, out = random.Random(seed), Tally(), folder / "out"
    source, begin = draw_source(folder / "noise.tar.gz"), time.monotonic()
    options = ("--workers", str(workers))
    finish(start(source, folder / "reference", *options))
    reference, usual = tree(folder / "reference"), time.monotonic() - begin
    while tally.kills < kills:
        company = start(source, out, *options) if tally.kills % 4 == 3 else None
        build = start(source, out, *options)
        survived = _wait_for_blow(build, out, dice, usual)
        if not survived:
            whole = dice.random() < 0.5
            tally.longest_orphan = max(tally.longest_orphan, kill(build, whole=whole))
            tally.kills += 1
            tally.moments[moment(out)] += 1
        if out.exists():
            check_state(out, reference)
        if company is not None:
            finish(company)
        if survived or company is not None or Layout(out).manifest.exists():
            finish(start(source, out, *options))
            _check_end(out, reference)
            tally.builds += 1
            _clear(out, folder)
    finish(start(source, out, *options))
    _check_end(out, reference)
    tally.builds += 1
    tally.seconds = time.monotonic() - begin
    return tally


def _wait_for_blow(
    build: subprocess.Popen[bytes], out: Path, dice: random.Random, usual: float
) -> bool:
    """Let a build live for a while; whether it ended before the blow.

    One in eight is hit at any time, start-up included, the others after a random number of shards.
    """
    before, more = _committed(out), dice.randrange(SHARDS_TO_LIVE)
    anywhere = dice.random() < 0.125
    end = time.monotonic() + dice.random() * (usual if anywhere else GRACE)
    while build.poll() is None and time.monotonic() < end:
        time.sleep(STEP)
        if not anywhere and _committed(out) < before + more:
            end = time.monotonic() + dice.random() * GRACE
    if build.poll() is None:
        return False
    finish(build)
    return True


def _committed(out: Path) -> int:
    return len(list(Layout(out).work.glob("shard-*.parquet")))


def _check_end(out: Path, reference: dict[str, str]) -> None:
    if tree(out) != reference:
        raise AssertionError("the resumed build differs from an undisturbed one")
    left = [str(path) for path in out.rglob("*") if is_partial(path, out)]
    if left:
        raise AssertionError(f"left behind: {left}")


def _clear(out: Path, folder: Path) -> None:
    """The next kill meets an empty place."""
    out.rename(folder / f"done-{time.monotonic_ns()}")


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = torture(
            Path(folder), arguments.kills, seed=arguments.seed, workers=arguments.workers
        )
    print(json.dumps(vars(tally)) if arguments.json else tally.row())


if __name__ == "__main__":
    main()
