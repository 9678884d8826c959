"""Compile both native.c with address and undefined-behaviour sanitizers and feed them mutated images.

    python -m tests.sanitize --images 10000

Besides what the sanitizers see: each image ends where readable memory ends, so that a read beyond it in libjpeg
ends the process too, and what native.c decodes must be what Python decodes, to the bit.
"""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path

from tests.sanitize.build import SanitizersMissing, compile_sanitized, run_trials


def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(
        prog="python -m tests.sanitize", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="sanitize-") as folder:
        try:
            compile_sanitized(Path(folder))
        except SanitizersMissing as missing:
            print(f"not run: {missing}")
            return 1
        done = run_trials(Path(folder), flags.images, flags.seed)
    print(done.stderr if done.returncode else done.stdout, end="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
