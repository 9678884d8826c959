"""The loader against its ceiling, its peers and itself, all on the same pictures and episodes.

    REAL_DATA=folder python -m benchmarks.loader --rounds 3     the tables of benchmarks/RESULTS.md
    REAL_DATA=folder python -m benchmarks.loader --quick        does it run? no figures to quote

Each contender is a process (and its children) that is stopped whenever it is not its turn; turns go
round. CPU time is the kernel's, of all its processes. What the pictures are: benchmarks/loader_data.py.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from benchmarks.build import git
from benchmarks.loader_data import SIZES, export, folder, installed, shards
from benchmarks.loader_tables import CONTENDERS, Contender, Setting, Start, Turn, tables

ROOT: Final = Path(__file__).resolve().parents[1]
EVERYONE: Final = 500  # support images of the episodes that all contenders read
SUPPORTS: Final = (100, EVERYONE, 1000)
OPENING: Final = 4  # episodes of a start that is timed
LIBRARIES: Final = (
    *("torch", "simplejpeg", "nvidia-dali-cuda130", "webdataset", "litdata", "mosaicml-streaming"),
    *("ffcv", "pillow"),
)


class Child:
    """A contender that runs while it is asked something, and is stopped otherwise."""

    def __init__(self, contender: Contender, setting: Setting) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the child lives
        self._name = contender.name
        command = [sys.executable, "-m", "benchmarks.loader_contenders", contender.name]
        self._process = subprocess.Popen(
            [*command, str(setting.size), str(setting.support)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._read()

    def ask(self, command: str) -> dict[str, Any]:
        """Let it run for one answer."""
        assert self._process.stdin is not None
        os.killpg(self._process.pid, signal.SIGCONT)
        print(command, file=self._process.stdin, flush=True)
        answer = self._read()
        os.killpg(self._process.pid, signal.SIGSTOP)
        return answer

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._log.seek(0)
            sys.stderr.write(self._log.read().decode(errors="replace")[-3000:])
            raise SystemExit(f"{self._name} ended with code {self._process.wait()}")
        return dict(json.loads(line))

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def started(contender: Contender, setting: Setting, child: Child, *, cold: bool) -> Start:
    """Time its first episodes, its files in the page cache or not."""
    cache(files_of(contender, setting.size), keep=not cold)
    answer = child.ask(f"go {OPENING}")
    return Start(
        contender=contender,
        setting=setting,
        cold=cold,
        first=answer["first"],
        images_per_second=answer["images"] / answer["seconds"],
        megabytes=answer["megabytes"],
        difference=answer["difference"],
    )


def files_of(contender: Contender, size: int) -> list[Path]:
    """What a contender reads."""
    return [path for path in contender.files(folder(), size).rglob("*") if path.is_file()]


def cache(files: Sequence[Path], *, keep: bool) -> None:
    """Into the page cache of this machine, or out of it; what is below it may have one of its own."""
    for file in files:
        if keep:
            file.read_bytes()
            continue
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def disk_speeds() -> str:
    """How fast a tar comes, evicted and not, to see what eviction means here."""
    tar = next((shards("raw") / "photographs" / str(SIZES[-1])).glob("*.tar"))
    speeds = []
    for cold in (True, False):
        if cold:
            cache([tar], keep=False)
        begin = time.monotonic()
        bytes_read = len(tar.read_bytes())
        speeds.append(bytes_read / (time.monotonic() - begin) / 1e6)
    return f"One file, read whole: {speeds[0]:,.0f} MB/s evicted, {speeds[1]:,.0f} MB/s cached."


def measured(
    contenders: Sequence[Contender], setting: Setting, wish: Namespace
) -> Iterator[Start | Turn]:
    """Start all, then take turns; another one comes first in each round."""
    children: dict[Contender, Child] = {}
    try:
        for contender in contenders:
            child = children[contender] = Child(contender, setting)
            yield started(contender, setting, child, cold=False)
        for turn in range(wish.rounds):
            shift = turn % len(contenders)
            for contender in (*contenders[shift:], *contenders[:shift]):
                answer = children[contender].ask(f"turn {wish.seconds}")
                yield Turn(
                    contender=contender,
                    setting=setting,
                    images_per_cpu_second=answer["images"] / answer["cpu"],
                    images_per_second=answer["images"] / answer["seconds"],
                    megabytes=answer["megabytes"],
                )
    finally:
        for child in children.values():
            child.__exit__(None, None, None)
    print(f"{setting}: done", file=sys.stderr)


def cold_starts(contenders: Sequence[Contender], setting: Setting, rounds: int) -> Iterator[Start]:
    """A fresh process each time, its files evicted after its imports."""
    for _ in range(rounds):
        for contender in contenders:
            with Child(contender, setting) as child:
                yield started(contender, setting, child, cold=True)


def everything(wish: Namespace) -> Iterator[Start | Turn]:
    """All that the tables show."""
    here = [contender for contender in CONTENDERS if chosen(contender, wish)]
    for contender in here:
        for size in wish.sizes:
            prepare(contender, size)
    for size in wish.sizes:
        for support in wish.supports:
            rows = [c for c in here if support == EVERYONE or c.always]
            yield from measured(rows, Setting(size, support), wish)
    if not wish.no_cold:
        rows = [contender for contender in here if contender.cold]
        yield from cold_starts(rows, Setting(wish.sizes[-1], EVERYONE), wish.rounds)


def chosen(contender: Contender, wish: Namespace) -> bool:
    """Whether it takes part; says so if it is not installed."""
    if wish.only and contender.name not in wish.only:
        return False
    if contender.module and not installed(contender.module):
        print(f"not installed, left out: {contender.name}", file=sys.stderr)
        return False
    return True


def prepare(contender: Contender, size: int) -> None:
    """Its files, before anything is timed.

    They leave the page cache once: one file written in small pieces is cached in small pieces, which
    makes reading it half as slow again until the disk gives it anew.
    """
    if contender.copy in ("jpeg", "raw", ""):
        shards(contender.copy or "jpeg")
    else:
        export(contender.copy, size)
    os.sync()
    cache(files_of(contender, size), keep=False)


def circumstances() -> str:
    """When, what and on what; no names of machines or folders."""
    commit, changes = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    flags = [word for word in sys.argv[1:] if "/" not in word and word != "--json"]
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, commit {commit}{' and changes' if changes else ''}, "
        f"{cpu} with {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{', '.join(filter(None, map(_version, LIBRARIES)))}, "
        f"native.c {'' if find_spec('pipeline.decoders.native') else 'not '}compiled; "
        f"`{' '.join(['python -m benchmarks.loader', *flags])}`"
    )


def _version(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return ""


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn")
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--supports", type=int, nargs="+", choices=SUPPORTS, default=list(SUPPORTS))
    parser.add_argument("--only", nargs="+", choices=[c.name for c in CONTENDERS], metavar="NAME")
    parser.add_argument("--no-cold", action="store_true", help="leave the evicted files out")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, for other tables")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 1, 0.5
    print(circumstances())
    results = list(everything(arguments))
    print("\n".join(tables(results)))
    print(f"\n{disk_speeds()}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    main()
