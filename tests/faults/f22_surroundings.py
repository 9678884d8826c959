"""F22: a jumping clock, locale C, umask 077, a read-only source, paths with spaces and letters of any kind: same bytes."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import ROOT
from tests.faults.rows import FaultRow
from tests.images import fill_class_folders, tree_hashes

SHORT = 6
LONG = 60
FEW = 3  # failures that the figure names
STRANGE_PATHS = (
    "with two  spaces",
    "日本語 ünï 🐱",
    'quote\'s "and" $HOME `x`',
    "%s {0} \\n",
    "-dash",
    "x" * 200,
    "a\nb",
)
READ_ONLY_SHELL = ("unshare", "--map-root-user", "--mount", "sh", "-c",
                   'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"')  # fmt: skip
CLOCK = Path(__file__).with_name("clock_shim.c")


@dataclass(frozen=True)
class BuildSurroundings:
    """What is around a build: the environment, the mask of new files, and where source and output lie."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)
    umask: int = 0o022
    folder: str = "plain"
    read_only: bool = False
    source: str = "photos"
    workers: int = 1

    def with_(self, other: BuildSurroundings) -> BuildSurroundings:
        """Both at once; the other's where both say something."""
        return BuildSurroundings(
            name=f"{self.name}, {other.name}",
            environment={**self.environment, **other.environment},
            umask=other.umask if other.umask != 0o022 else self.umask,
            folder=other.folder if other.folder != "plain" else self.folder,
            read_only=self.read_only or other.read_only,
            source=other.source if other.source != "photos" else self.source,
            workers=max(self.workers, other.workers),
        )


def run(points: int, folder: Path) -> FaultRow:
    """Build under each of the surroundings, then under pairs of them, and compare every file."""
    every = surroundings(clock_shim(folder))
    pairs = (one.with_(other) for one, other in itertools.combinations(every, 2))
    chosen = list(itertools.islice(itertools.chain(every, pairs), points))
    make_sources(folder / "plain")
    usual = {
        name: build(BuildSurroundings("usual", source=name), folder) for name in ("photos", "photos.tgz")
    }
    failures = []
    for around in chosen:
        found, expected = build(around, folder), usual[around.source]
        if isinstance(found, str) or found != expected:
            failures.append(f"{around.name}: {found if isinstance(found, str) else 'other bytes'}")
    figure = f"{len(chosen) - len(failures)} of {len(chosen)} surroundings give the same bytes {failures[:FEW] or ''}"
    missing = [] if every[0].environment else ["no jumping clock: a C compiler is missing"]
    missing += [] if can_mount() else ["no read-only source: this user may not mount"]
    return FaultRow(len(chosen), len(failures), figure.strip(), "; ".join(missing))


def surroundings(clock: Mapping[str, str]) -> list[BuildSurroundings]:
    """The ones that the matrix names first."""
    jumps = [BuildSurroundings("a clock that jumps", environment=clock)] if clock else []
    return [
        *jumps,
        BuildSurroundings("locale C", environment={"LC_ALL": "C", "LANG": "C"}),
        BuildSurroundings("umask 077", umask=0o077),
        *([BuildSurroundings("a read-only source", read_only=True)] if can_mount() else []),
        *(BuildSurroundings(f"the folder {name[:20]!r}", folder=name) for name in STRANGE_PATHS),
        BuildSurroundings("an archive", source="photos.tgz"),
        BuildSurroundings("locale POSIX", environment={"LC_ALL": "POSIX"}),
        BuildSurroundings("locale C as it is", environment={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}),
        BuildSurroundings("umask 000", umask=0o000),
        BuildSurroundings("another time zone", environment={"TZ": "Pacific/Kiritimati"}),
        BuildSurroundings("other hashes", environment={"PYTHONHASHSEED": "1"}),
        BuildSurroundings("no home", environment={"HOME": "/nonexistent"}),
        BuildSurroundings("two workers", workers=2),
    ]


def can_mount() -> bool:
    """Whether a process here may mount what it likes in a namespace of its own."""
    trial = ["unshare", "--map-root-user", "--mount", "true"]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(trial, capture_output=True, check=False).returncode
    )


def clock_shim(folder: Path) -> dict[str, str]:
    """The environment that makes the clock jump; empty without a compiler."""
    library = folder / "clock.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", str(CLOCK), "-o", str(library), "-ldl"]
    if not shutil.which("gcc") or subprocess.run(command, capture_output=True, check=False).returncode:
        return {}
    return {"LD_PRELOAD": str(library)}


def make_sources(folder: Path) -> None:
    """Four classes, one with a name outside of ASCII, as folders and as an archive."""
    fill_class_folders(folder / "photos", {"cat": 9, "dog": 7, "große Eule": 6, "one": 1})
    with tarfile.open(folder / "photos.tgz", "w:gz") as archive:
        for path in sorted((folder / "photos").rglob("*.jpg")):
            archive.add(path, path.relative_to(folder / "photos").as_posix())


def build(around: BuildSurroundings, folder: Path) -> dict[str, str] | str:
    """The sha256 of every file of a build, or how it failed."""
    source = folder / around.folder / around.source
    if not source.exists():
        make_sources(folder / around.folder)
    out = folder / around.folder / "out"
    stored = ("--sizes", "24", "48", "--encode", "24=raw", "48=jpeg:95", "--shard-samples", "4")
    where = (f"--source={source}", f"--out={out}", f"--workers={around.workers}")
    command = [sys.executable, "-m", "pipeline.build", "--dataset", "folder", "--quiet", *stored, *where]
    done = subprocess.run(
        [*READ_ONLY_SHELL, str(source), *command] if around.read_only else command,
        cwd=ROOT, env=os.environ | around.environment, umask=around.umask,
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    hashes = tree_hashes(out) if out.exists() else {}
    shutil.rmtree(out, ignore_errors=True)
    return done.stderr.strip()[-300:] if done.returncode else hashes
