"""Fuzz parsers of foreign bytes: `python -m tests.fuzz [NAME ...] [--minutes 10] [--seed N]`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.fuzz.engines import BOX_BYTES, FlightRecorder
from tests.fuzz.target import load_target, target_names
from tests.fuzz.trial import keep_find

ROOT: Final = Path(__file__).resolve().parent.parent.parent
HUNG: Final = 20.0  # times an input's processor time that it may take by the clock, and a minute more
LOOK_SECONDS: Final = 1.0  # between two looks at the child


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz the targets one after the other and return 1 if one of them has finds."""
    parser = ArgumentParser(prog="python -m tests.fuzz", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(target_names())}; default all"
    )
    parser.add_argument("--minutes", type=float, default=10, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="seeded changes even where atheris is installed")
    flags = parser.parse_args(argv)
    if unknown := [name for name in flags.names if name not in target_names()]:
        parser.error(f"there is no target {', '.join(unknown)}; there are {', '.join(target_names())}")
    options = ["--seconds", str(60 * flags.minutes), "--seed", str(flags.seed), *["--plain"] * flags.plain]
    finds = [fuzz_target(name, options) for name in flags.names or target_names()]
    return 1 if any(finds) else 0


def fuzz_target(name: str, options: Sequence[str]) -> int:
    """Fuzz one target in a process of its own, print its line and return its number of finds."""
    begin = time.monotonic()
    with tempfile.NamedTemporaryFile(prefix="fuzz-recorder-") as file, tempfile.TemporaryFile() as errors:
        file.truncate(BOX_BYTES)
        recorder = FlightRecorder(Path(file.name))
        engine = [sys.executable, "-m", "tests.fuzz.engines", name, file.name, *options]
        child = subprocess.Popen(engine, cwd=ROOT, stderr=errors)
        hung = wait_for_child(child, recorder, seconds=60 + HUNG * load_target(name).seconds)
        tried, finds, data = recorder.read()
        if hung or child.returncode < 0:
            finds += 1
            death = "hung" if hung else f"ended by signal {-child.returncode}"
            print(f"FIND {death}: {keep_find(load_target(name), data)} ({len(data)} bytes)")
        elif child.returncode:
            finds += 1
            errors.seek(0)
            print(
                f"FIND exit code {child.returncode} of {' '.join(engine)}\n{errors.read().decode()[-3000:]}"
            )
    seconds = time.monotonic() - begin
    print(
        f"{name}: {tried:,} inputs in {seconds:,.0f} s, {tried / seconds:,.0f} a second, {finds} finds",
        flush=True,
    )
    return finds


def wait_for_child(child: subprocess.Popen[bytes], recorder: FlightRecorder, *, seconds: float) -> bool:
    """Wait for the end; a child that shows no new input for so long is killed, and the answer is True."""
    last, since = -1, time.monotonic()
    while child.poll() is None:
        tried = recorder.read()[0]
        if tried != last:
            last, since = tried, time.monotonic()
        if time.monotonic() - since > seconds:
            child.kill()
            child.wait()
            return True
        time.sleep(LOOK_SECONDS)
    return False


if __name__ == "__main__":
    sys.exit(main())
