"""The loader against its ceiling, its peers and itself, all on the same images and episodes.

    REAL_DATA=folder python -m benchmarks.loader --rounds 3     the tables of benchmarks/RESULTS.md
    REAL_DATA=folder python -m benchmarks.loader --quick        does it run? no figures to quote

Each contender is a process (and its children) that is stopped unless it is its turn; contenders take turns.
CPU time is the kernel's, of all its processes. The images are those of benchmarks/loader_data.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from benchmarks.common import ROOT, describe_run, is_installed
from benchmarks.loader_data import data_folder, peer_copy, shard_set
from benchmarks.loader_tables import (
    LOADER_CONTENDERS,
    LoaderContender,
    LoaderSetting,
    LoaderStart,
    LoaderTurn,
    loader_tables,
)
from pipeline.constants import DEFAULT_SIZES

COMMON_SUPPORT: Final = 500  # support images of the episodes that all contenders read
SUPPORT_SIZES: Final = (100, COMMON_SUPPORT, 1000)
START_EPISODES: Final = 4  # episodes that a timed start reads
LIBRARIES: Final = (
    *("torch", "simplejpeg", "nvidia-dali-cuda130", "webdataset", "litdata", "mosaicml-streaming"),
    *("ffcv", "pillow"),
)


class ContenderProcess:
    """A contender's process: it runs while it works on a command, and is stopped otherwise."""

    def __init__(self, contender: LoaderContender, setting: LoaderSetting) -> None:
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
        """Let it run for one command; returns its answer."""
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

    def __enter__(self) -> ContenderProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


def measure_start(
    contender: LoaderContender, setting: LoaderSetting, child: ContenderProcess, *, cold: bool
) -> LoaderStart:
    """Time a contender's first episodes, with its files in the page cache or not."""
    set_page_cache(files_of(contender, setting.size), keep=not cold)
    answer = child.ask(f"go {START_EPISODES}")
    return LoaderStart(
        contender=contender,
        setting=setting,
        cold=cold,
        first=answer["first"],
        images_per_second=answer["images"] / answer["seconds"],
        megabytes=answer["megabytes"],
        difference=answer["difference"],
    )


def files_of(contender: LoaderContender, size: int) -> list[Path]:
    """The files that a contender reads."""
    return [path for path in contender.files(data_folder(), size).rglob("*") if path.is_file()]


def set_page_cache(files: Sequence[Path], *, keep: bool) -> None:
    """Read files into the page cache, or evict them; the disk below may have a cache of its own."""
    for file in files:
        if keep:
            file.read_bytes()
            continue
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def disk_speeds() -> str:
    """How fast a tar is read, evicted and cached, to see what eviction means on this machine."""
    tar = next((shard_set("raw") / "photographs" / str(DEFAULT_SIZES[-1])).glob("*.tar"))
    speeds = []
    for cold in (True, False):
        if cold:
            set_page_cache([tar], keep=False)
        begin = time.monotonic()
        bytes_read = len(tar.read_bytes())
        speeds.append(bytes_read / (time.monotonic() - begin) / 1e6)
    return f"One file, read whole: {speeds[0]:,.0f} MB/s evicted, {speeds[1]:,.0f} MB/s cached."


def measure_turns(
    contenders: Sequence[LoaderContender], setting: LoaderSetting, flags: Namespace
) -> Iterator[LoaderStart | LoaderTurn]:
    """Start all contenders, then take turns; each round begins with another one."""
    children: dict[LoaderContender, ContenderProcess] = {}
    try:
        for contender in contenders:
            child = children[contender] = ContenderProcess(contender, setting)
            yield measure_start(contender, setting, child, cold=False)
        for turn in range(flags.rounds):
            shift = turn % len(contenders)
            for contender in (*contenders[shift:], *contenders[:shift]):
                answer = children[contender].ask(f"turn {flags.seconds}")
                yield LoaderTurn(
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


def cold_starts(
    contenders: Sequence[LoaderContender], setting: LoaderSetting, rounds: int
) -> Iterator[LoaderStart]:
    """Starts in fresh processes, whose files are evicted after their imports."""
    for _ in range(rounds):
        for contender in contenders:
            with ContenderProcess(contender, setting) as child:
                yield measure_start(contender, setting, child, cold=True)


def measure_all(flags: Namespace) -> Iterator[LoaderStart | LoaderTurn]:
    """Measure everything that the tables show."""
    installed = [contender for contender in LOADER_CONTENDERS if takes_part(contender, flags)]
    for contender in installed:
        for size in flags.sizes:
            prepare_files(contender, size)
    for size in flags.sizes:
        for support in flags.supports:
            rows = [c for c in installed if support == COMMON_SUPPORT or c.always]
            yield from measure_turns(rows, LoaderSetting(size, support), flags)
    if not flags.no_cold:
        rows = [contender for contender in installed if contender.cold]
        yield from cold_starts(rows, LoaderSetting(flags.sizes[-1], COMMON_SUPPORT), flags.rounds)


def takes_part(contender: LoaderContender, flags: Namespace) -> bool:
    """Whether a contender takes part; prints a line if it is not installed."""
    if flags.only and contender.name not in flags.only:
        return False
    if contender.module and not is_installed(contender.module):
        print(f"not installed, left out: {contender.name}", file=sys.stderr)
        return False
    return True


def prepare_files(contender: LoaderContender, size: int) -> None:
    """Make a contender's files before anything is timed.

    They are evicted from the page cache once: a file that was written in small pieces is cached in small
    pieces, and reading it takes half as long again until it has been read from the disk anew.
    """
    if contender.copy in ("jpeg", "raw", ""):
        shard_set(contender.copy or "jpeg")
    else:
        peer_copy(contender.copy, size)
    os.sync()
    set_page_cache(files_of(contender, size), keep=False)


def library_versions() -> str:
    """The versions of the libraries that take part, and whether our own is compiled."""
    compiled = "compiled" if is_installed("pipeline.decoders.native") else "not compiled"
    return ", ".join([*filter(None, map(_version, LIBRARIES)), f"native.c {compiled}"])


def _version(library: str) -> str:
    try:
        return f"{library} {version(library)}"
    except PackageNotFoundError:
        return ""


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn")
    parser.add_argument("--sizes", type=int, nargs="+", choices=DEFAULT_SIZES, default=list(DEFAULT_SIZES))
    parser.add_argument("--supports", type=int, nargs="+", choices=SUPPORT_SIZES, default=list(SUPPORT_SIZES))
    parser.add_argument("--only", nargs="+", choices=[c.name for c in LOADER_CONTENDERS], metavar="NAME")
    parser.add_argument("--no-cold", action="store_true", help="leave the evicted files out")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, for other tables")
    flags = parser.parse_args()
    if flags.quick:
        flags.rounds, flags.seconds = 1, 0.5
    print(describe_run("benchmarks.loader", library_versions()))
    results = list(measure_all(flags))
    print("\n".join(loader_tables(results)))
    print(f"\n{disk_speeds()}")
    if flags.json:
        flags.json.write_text(json.dumps([asdict(result) for result in results], indent=1))


if __name__ == "__main__":
    main()
