"""The builder against its ceiling, plain Pillow and its peers' writers, all on the same pictures.

    REAL_DATA=folder python -m benchmarks.build             the tables of benchmarks/RESULTS.md
    REAL_DATA=folder python -m benchmarks.build --quick     does it run? no figures to quote

Every run is a fresh process. Its CPU time, its children's included, is the kernel's; it counts from
when all is imported, less what the same run takes with hardly any pictures (to start workers). Runs
are interleaved in rounds.
The ceiling is the pixels' part alone, in a bare loop: read, decode, resize, encode, forget. All but
the builder run with an allocator told to keep its memory, which is luck otherwise and helps them.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import PIL

from benchmarks.plan_growth import HEADER, growth, row
from benchmarks.tables import PEERS, Case, Contender, Cost, Result, tables
from benchmarks.workloads import cache_folder, workloads

ROOT: Final = Path(__file__).resolve().parents[1]
PICTURES: Final = {"photos": 2400, "caltech": 5226, "frames": 750}  # about 4 s of work each
SHARDS: Final = 6  # in a run; the default would make many small ones of so few pictures
QUICK: Final = 6  # times fewer with --quick
SLOW: Final = 4  # times fewer with plain Pillow
PLAIN: Final = "pillow>=11,<13"
KEEP_MEMORY: Final = {  # glibc: do not give freed pictures back to the kernel, zeroed again for each
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    "MALLOC_MMAP_THRESHOLD_": str(2**25),
}


def ours() -> list[Contender]:
    """The builder and its ceiling."""
    rows = [Contender(name, workers) for name in ("bare", "builder") for workers in (1, 2)]
    return [*rows, Contender("bare+check"), Contender("builder", plain=True)]


def peers() -> list[Contender]:
    """Those that are installed here, with plain Pillow and with the one that is installed."""
    found = [name for name, module in PEERS.items() if find_spec(module) is not None]
    for name in sorted(set(PEERS) - set(found)):
        print(f"not installed, left out: {name}; `make bench` installs it", file=sys.stderr)
    return [Contender(name, plain=plain) for plain in (True, False) for name in found]


def plain_pillow() -> Path:
    """A folder to put before everything else on the path: Pillow's own wheel, unpacked."""
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


def cost(contender: Contender, case: Case, tar: Path, images: int, shard_samples: int) -> Cost:
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
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
        end = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            sys.stderr.write(output.read().decode()[-3000:])
            raise SystemExit(f"{contender.name} ended with code {process.returncode}")
        cpu, begin = map(float, Path(folder, "ready").read_text().split())
    cpu = usage.ru_utime + usage.ru_stime - cpu
    return Cost(images, cpu, end - begin, usage.ru_maxrss / 1024)


def measured(arguments: Namespace) -> Iterator[Result]:
    """All runs of all rounds; another contender comes first in each."""
    tars, rows = workloads(arguments.data), ours() if arguments.no_peers else ours() + peers()
    for turn in range(arguments.rounds):
        order = rows[turn % len(rows) :] + rows[: turn % len(rows)]
        hardly = Case("photos", "raw")
        starts = {
            contender: cost(contender, hardly, tars["photos"], 2 * contender.workers, 1)
            for contender in order
        }
        for case in (Case(p, s) for p in arguments.pictures for s in arguments.small):
            for contender in order:
                images = PICTURES[case.pictures] // (QUICK if arguments.quick else 1)
                images //= SLOW if contender.plain else 1
                whole = cost(contender, case, tars[case.pictures], images, -(-images // SHARDS))
                yield _result(case, contender, whole, starts[contender])
            print(f"round {turn + 1}: {case.pictures}, {case.small}", file=sys.stderr)


def _result(case: Case, contender: Contender, whole: Cost, start: Cost) -> Result:
    images = whole.images - start.images
    return Result(
        case=case,
        contender=contender,
        images_per_cpu_second=images / (whole.cpu - start.cpu),
        images_per_second=images / (whole.wall - start.wall),
        megabytes=whole.megabytes,
        start_cpu=start.cpu,
    )


def circumstances() -> str:
    """When, what and on what; no names of machines or folders."""
    commit, changes = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")
    flags = [word for word in sys.argv[1:] if "/" not in word and word not in ("--data", "--json")]
    return (
        f"{datetime.now(timezone.utc):%Y-%m-%d}, commit {commit}{' and changes' if changes else ''}, "
        f"{cpu} with {os.cpu_count()} cores, Python {platform.python_version()}, Pillow "
        f"{PIL.__version__}, plain: {plain_pillow_version()}; "
        f"`{' '.join(['python -m benchmarks.build', *flags])}`"
    )


def git(*arguments: str) -> str:
    """What git says of this repository; nothing outside of one."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def plain_pillow_version() -> str:
    """Of the one to compare with."""
    return next(plain_pillow().glob("*.dist-info")).name.removesuffix(".dist-info")


def main() -> None:
    parser = ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", type=Path, default=os.environ.get("REAL_DATA"), help="REAL_DATA")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few pictures, to see that it runs")
    parser.add_argument("--pictures", nargs="+", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--small", nargs="+", default=["raw", "jpeg:95"], help="84 px stored as")
    parser.add_argument("--no-peers", action="store_true", help="us and the ceiling alone")
    parser.add_argument("--no-plan", action="store_true", help="leave the growth of plans out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run, for other tables")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("the real pictures are needed: name their folder with --data or REAL_DATA")
    arguments.data = Path(arguments.data).absolute()
    print(circumstances())
    results = list(measured(arguments))
    print("\n".join(tables(results)))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(result) for result in results], indent=1))
    if not arguments.no_plan:
        print(f"\n### Growth of plans\n\n{HEADER}")
        for kind, largest in (("items", 10**6), ("files", 10**5)):
            for items in (10**4, 10**5, 10**6):
                if items <= largest // (QUICK if arguments.quick else 1):
                    print(row(growth(kind, items)), flush=True)


if __name__ == "__main__":
    main()
