"""The extension modules compiled with sanitizers, and a Python that can load them."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from benchmarks.common import ROOT

LIBRARIES: Final = {"decoders": ("-ljpeg", "-lisal"), "samplers": ()}  # the packages with a native.c
SANITIZERS: Final = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-O1", "-g")
OPTIONS: Final = (
    "detect_leaks=0:abort_on_error=1:allocator_may_return_null=1"  # Python frees not all at its end
)


class SanitizersMissing(Exception):
    """There is no compiler with sanitizers, or no headers."""


def compile_sanitized(folder: Path) -> None:
    """Compile each native.c to `folder/<package>.so`."""
    for package, libraries in LIBRARIES.items():
        source, output = ROOT / "pipeline" / package / "native.c", folder / f"{package}.so"
        options = ("-shared", "-fPIC", *SANITIZERS, "-I", sysconfig.get_paths()["include"])
        command = [os.environ.get("CC", "gcc"), *options, str(source), "-o", str(output), *libraries]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise SanitizersMissing(f"a C compiler is needed: {error}") from error
        if done.returncode:
            raise SanitizersMissing(done.stderr.strip().splitlines()[0])


def run_trials(folder: Path, images: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Try mutated images in a process of its own, whose exit code is not 0 if anything is wrong."""
    compiler = os.environ.get("CC", "gcc")
    find = [compiler, "-print-file-name=libasan.so"]
    runtime = subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()
    environment = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": OPTIONS, "UBSAN_OPTIONS": "print_stacktrace=1"}
    command = [sys.executable, "-m", "tests.sanitize.trials", str(folder), str(images), str(seed)]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
