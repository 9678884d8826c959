"""Compare the builder with its upper bound, plain Pillow and its peers' writers on the same images.

    REAL_DATA=folder python -m benchmarks.build             the tables of benchmarks/RESULTS.md
    REAL_DATA=folder python -m benchmarks.build --quick     only checks that it runs

Every run is a fresh process. Its CPU time, its children's included, is the kernel's. It counts from
when all is imported, less the time of the same run with hardly any images (which starts workers). Runs
are interleaved in rounds.
The upper bound is a bare loop over the pixels: read, decode, resize, encode, discard. All contenders but
the builder run with an allocator that keeps its memory, which otherwise depends on luck and helps them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Final

import PIL

from benchmarks.common import ROOT, describe_run, is_installed
from benchmarks.plan_growth import GROWTH_HEADER, growth_row, measure_growth
from benchmarks.tables import BUILD_PEERS, BuildCase, BuildContender, BuildCost, BuildResult, build_tables
from benchmarks.workloads import cache_folder, workloads

PICTURES: Final = {"photos": 2400, "caltech": 5226, "frames": 750}  # about 4 s of work each
SHARDS: Final = 6  # in a run; the default would make many small ones of so few images
QUICK: Final = 6  # times fewer with --quick
SLOW: Final = 4  # times fewer with plain Pillow
PLAIN: Final = "pillow>=11,<13"
KEEP_MEMORY: Final = {  # glibc: do not give freed images back to the kernel, zeroed again for each
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


def our_contenders() -> list[BuildContender]:
    """The builder and its upper bound."""
    rows = [BuildContender(name, workers) for name in ("bare", "builder") for workers in (1, 2)]
    return [*rows, BuildContender("bare+check"), BuildContender("builder", plain=True)]


def peer_contenders() -> list[BuildContender]:
    """The installed peers, with plain Pillow and with the Pillow that is installed."""
    installed = [name for name, module in BUILD_PEERS.items() if is_installed(module)]
    for name in sorted(set(BUILD_PEERS) - set(installed)):
        print(f"not installed, left out: {name}; `make bench` installs it", file=sys.stderr)
    return [BuildContender(name, plain=plain) for plain in (True, False) for name in installed]


def plain_pillow() -> Path:
    """A folder with Pillow's own wheel, unpacked, to put first on the path."""
    folder = cache_folder() / f"plain-pillow-{sys.implementation.cache_tag}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            free = Path(scratch) / "no-constraints.txt"
            free.touch()
            options = ["-q", "--no-deps", "--only-binary=:all:", "-d", scratch, PLAIN]
            subprocess.run(
                [sys.executable, "-m", "pip", "download", *options], check=True,
                env=os.environ | {"PIP_CONSTRAINT": str(free)},
            )  # fmt: skip
            with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
                wheel.extractall(Path(scratch) / "unpacked")
            (Path(scratch) / "unpacked").rename(folder)
    return folder


def measure_cost(
    contender: BuildContender, case: BuildCase, tar: Path, images: int, shard_samples: int
) -> BuildCost:
    """Run a contender in a process of its own."""
    path = [str(plain_pillow())] if contender.plain else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*path, str(ROOT)])}
    if contender.name != "builder":
        environment |= KEEP_MEMORY
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        command: list[str | Path] = [
            *(sys.executable, "-m", "benchmarks.contenders", contender.name),
            *(tar, f"{folder}/out", f"{folder}/ready", "--images", str(images)),
            *("--workers", str(contender.workers), "--small", case.small),
            *("--shard-samples", str(shard_samples)),
        ]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        end = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.stderr.write(output.read().decode()[-3000:])
            raise SystemExit(f"{contender.name} ended with code {process.returncode}")
        cpu, begin = map(float, Path(folder, "ready").read_text().split())
    cpu = usage.ru_utime + usage.ru_stime - cpu
    return BuildCost(images, cpu, end - begin, usage.ru_maxrss / 1024)


def measure_all(arguments: Namespace) -> Iterator[BuildResult]:
    """The results of all runs of all rounds; each round begins with another contender."""
    tars, rows = (
        workloads(arguments.data),
        our_contenders() if arguments.no_peers else our_contenders() + peer_contenders(),
    )
    for turn in range(arguments.rounds):
        order = rows[turn % len(rows) :] + rows[: turn % len(rows)]
        hardly = BuildCase("photos", "raw")
        starts = {
            contender: measure_cost(contender, hardly, tars["photos"], 2 * contender.workers, 1)
            for contender in order
        }
        for case in (BuildCase(p, s) for p in arguments.pictures for s in arguments.small):
            for contender in order:
                images = PICTURES[case.pictures] // (QUICK if arguments.quick else 1)
                images //= SLOW if contender.plain else 1
                whole = measure_cost(contender, case, tars[case.pictures], images, -(-images // SHARDS))
                yield _result(case, contender, whole, starts[contender])
            print(f"round {turn + 1}: {case.pictures}, {case.small}", file=sys.stderr)


def _result(case: BuildCase, contender: BuildContender, whole: BuildCost, start: BuildCost) -> BuildResult:
    images = whole.images - start.images
    return BuildResult(
        case=case,
        contender=contender,
        images_per_cpu_second=images / (whole.cpu - start.cpu),
        images_per_second=images / (whole.wall - start.wall),
        megabytes=whole.megabytes,
        start_cpu=start.cpu,
    )


def plain_pillow_version() -> str:
    """The version of the plain Pillow."""
    return next(plain_pillow().glob("*.dist-info")).name.removesuffix(".dist-info")


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=os.environ.get("REAL_DATA"), help="REAL_DATA")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few images, to see that it runs")
    parser.add_argument("--pictures", nargs="+", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--small", nargs="+", default=["raw", "jpeg:95"], help="84 px stored as")
    parser.add_argument("--no-peers", action="store_true", help="us and the ceiling alone")
    parser.add_argument("--no-plan", action="store_true", help="leave the growth of plans out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run, for other tables")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the real pictures are needed: name their folder with --data or REAL_DATA")
    arguments.data = Path(arguments.data).absolute()
    versions = f"Pillow {PIL.__version__}, plain: {plain_pillow_version()}"
    print(describe_run("benchmarks.build", versions))
    results = list(measure_all(arguments))
    print("\n".join(build_tables(results)))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    if not arguments.no_plan:
        print(f"\n### Growth of plans\n\n{GROWTH_HEADER}")
        for kind, largest in (("items", 10**6), ("files", 10**5)):
            for items in (10**4, 10**5, 10**6):
                if items <= largest // (QUICK if arguments.quick else 1):
                    print(growth_row(measure_growth(kind, items)), flush=True)


if __name__ == "__main__":
    main()
