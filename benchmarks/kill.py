"""Kill builds at random moments and restart them: the result must have the bytes of an undisturbed build.

    python -m benchmarks.kill --kills 100

Each kill is SIGKILL, half of the time to the whole build, half of the time only to its main process.
After each one no process may still run, every file with its final name must be right, and the dataset
must not open before it is complete. Every fourth kill hits a build that runs beside another one on the
same output.
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

from benchmarks.common import ROOT
from pipeline.errors import SourceMissing
from pipeline.layout import TEMPORARY_PREFIX, DatasetLayout
from pipeline.shardset import ShardSet

OPTIONS: Final = ("--sizes", "24", "48", "--encode", "24=raw", "48=jpeg:95", "--shard-samples", "8")
ORPHAN_SECONDS: Final = 5.0  # seconds in which every worker must have gone
LOOK_SECONDS: Final = 0.002  # seconds between two looks
GRACE_SECONDS: Final = 0.1  # seconds at most between a shard's commit and the blow
SHARDS_TO_LIVE: Final = 9  # a build is hit after fewer new shards than that, of 20


@dataclass
class KillTally:
    """The counts of a session of kills."""

    kills: int = 0
    builds: int = 0
    """Builds that reached their end, each compared with the reference."""
    moments: Counter[str] = field(default_factory=Counter)
    longest_orphan: float = 0.0
    """Seconds until the last process of a killed build was gone."""
    seconds: float = 0.0

    def row(self) -> str:
        """One line for benchmarks/RESULTS.md."""
        moments = ", ".join(f"{count} {moment}" for moment, count in self.moments.most_common())
        return (
            f"{self.kills} kills ({moments}), {self.builds} of {self.builds} builds byte-identical, "
            f"last process gone after {self.longest_orphan:.2f} s at most, {self.seconds:.0f} s in all"
        )


def write_noise_archive(path: Path, images: int = 160) -> Path:
    """A .tar.gz of four classes, so that kills also hit its inflated copy in the scratch folder."""
    with tarfile.open(path, "w:gz") as archive:
        for number in range(images):
            buffer = io.BytesIO()
            side = 150 + number % 50
            Image.effect_noise((side, 120), 50).convert("RGB").save(buffer, "JPEG")
            entry = tarfile.TarInfo(f"noise/class {number % 4}/{number:03d}.jpg")
            entry.size = len(buffer.getvalue())
            archive.addfile(entry, io.BytesIO(buffer.getvalue()))
    return path


def build_command(source: Path, out: Path, *options: str) -> list[str]:
    """The command line of the build under test."""
    build = [sys.executable, "-m", "pipeline.build", "--dataset", "folder", "--quiet"]
    return [*build, "--source", str(source), "--out", str(out), *OPTIONS, *options]


def start_build(source: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a build as the leader of a process group of its own."""
    return subprocess.Popen(
        build_command(source, out, *options), cwd=ROOT, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_build(build: subprocess.Popen[bytes]) -> None:
    """Wait for an undisturbed build."""
    _, errors = build.communicate()
    if build.returncode:
        raise AssertionError(f"exit code {build.returncode}: {errors.decode()}")


def file_hashes(out: Path) -> dict[str, str]:
    """The sha256 of every file that has its final name."""
    files = (path for path in out.rglob("*") if path.is_file() and not is_partial(path, out))
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def is_partial(path: Path, out: Path) -> bool:
    """Whether a file is one that the next build will remove."""
    return path.name.startswith(TEMPORARY_PREFIX) or DatasetLayout(out).scratch in path.parents


def build_progress(out: Path) -> str:
    """How far a killed build had got."""
    layout = DatasetLayout(out)
    if not layout.plan.exists():
        return "before the plan"
    if layout.manifest.exists():
        return "after the manifest"
    return "between shards" if _committed(out) else "before the first shard"


def running_processes(group: int) -> list[Path]:
    """The running processes of a group; zombies do not count."""
    running = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, owner = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just gone
            continue
        if int(owner) == group and state not in "ZX":
            running.append(status.parent)
    return running


def wait_until_gone(group: int) -> float:
    """Wait until no process of the group runs; returns the seconds that took."""
    begin = time.monotonic()
    while running_processes(group):
        if time.monotonic() - begin > ORPHAN_SECONDS:
            raise AssertionError(f"processes of group {group} live on after {ORPHAN_SECONDS} s")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - begin


def kill_build(build: subprocess.Popen[bytes], *, whole: bool) -> float:
    """Send SIGKILL to the whole group or to the main process; returns the seconds until all are gone."""
    if whole:
        os.killpg(build.pid, signal.SIGKILL)
    else:
        build.kill()
    build.communicate()
    return wait_until_gone(build.pid)


def check_state(out: Path, reference: dict[str, str]) -> None:
    """Check what holds at any moment: named files are right, and only a complete dataset opens."""
    wrong = {name: digest for name, digest in file_hashes(out).items() if reference.get(name) != digest}
    if wrong:
        raise AssertionError(f"files that differ from an undisturbed build's: {sorted(wrong)}")
    if DatasetLayout(out).manifest.exists():
        ShardSet.open(out)
        if file_hashes(out) != reference:
            raise AssertionError(f"a manifest and not all files: {sorted(file_hashes(out))}")
        return
    try:
        ShardSet.open(out)
    except SourceMissing:
        return
    raise AssertionError("an unfinished dataset opens")


def kill_builds(folder: Path, kills: int, *, seed: int = 0, workers: int = 2) -> KillTally:
    """Kill that many builds in `folder`. Raises AssertionError at the first thing that is wrong."""
    dice, tally, out = random.Random(seed), KillTally(), folder / "out"
    source, begin = write_noise_archive(folder / "noise.tar.gz"), time.monotonic()
    options = ("--workers", str(workers))
    wait_for_build(start_build(source, folder / "reference", *options))
    reference, usual = file_hashes(folder / "reference"), time.monotonic() - begin
    while tally.kills < kills:
        other = start_build(source, out, *options) if tally.kills % 4 == 3 else None
        build = start_build(source, out, *options)
        survived = _wait_for_kill(build, out, dice, usual)
        if not survived:
            whole = dice.random() < 0.5
            tally.longest_orphan = max(tally.longest_orphan, kill_build(build, whole=whole))
            tally.kills += 1
            tally.moments[build_progress(out)] += 1
        if out.exists():
            check_state(out, reference)
        if other is not None:
            wait_for_build(other)
        if survived or other is not None or DatasetLayout(out).manifest.exists():
            wait_for_build(start_build(source, out, *options))
            _check_end(out, reference)
            tally.builds += 1
            _clear(out, folder)
    wait_for_build(start_build(source, out, *options))
    _check_end(out, reference)
    tally.builds += 1
    tally.seconds = time.monotonic() - begin
    return tally


def _wait_for_kill(build: subprocess.Popen[bytes], out: Path, dice: random.Random, usual: float) -> bool:
    """Let a build run for a while; True if it ended before it was killed.

    One in eight is killed at any time, start-up included, the others after a random number of shards.
    """
    before, more = _committed(out), dice.randrange(SHARDS_TO_LIVE)
    anywhere = dice.random() < 0.125
    end = time.monotonic() + dice.random() * (usual if anywhere else GRACE_SECONDS)
    while build.poll() is None and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
        if not anywhere and _committed(out) < before + more:
            end = time.monotonic() + dice.random() * GRACE_SECONDS
    if build.poll() is None:
        return False
    wait_for_build(build)
    return True


def _committed(out: Path) -> int:
    return len(list(DatasetLayout(out).work.glob("shard-*.parquet")))


def _check_end(out: Path, reference: dict[str, str]) -> None:
    if file_hashes(out) != reference:
        raise AssertionError("the resumed build differs from an undisturbed one")
    left = [str(path) for path in out.rglob("*") if is_partial(path, out)]
    if left:
        raise AssertionError(f"left behind: {left}")


def _clear(out: Path, folder: Path) -> None:
    """Move the output away, so that the next build starts from nothing."""
    out.rename(folder / f"done-{time.monotonic_ns()}")


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = kill_builds(Path(folder), arguments.kills, seed=arguments.seed, workers=arguments.workers)
    print(json.dumps(vars(tally)) if arguments.json else tally.row())


if __name__ == "__main__":
    main()
