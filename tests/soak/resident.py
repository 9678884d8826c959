"""A process that reads, trains and evaluates once for each line of its input: `python -m tests.soak.resident SHARDS`."""

from __future__ import annotations

import gc
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import train
from learners.evaluate.__main__ import main as evaluate
from tests.soak.reader import read_episodes
from tests.soak.settings import evaluate_command, train_command


def one_pass(shards: Path) -> None:
    """Read forty episodes, train a run and evaluate it, all in this process."""
    with tempfile.TemporaryDirectory(prefix="soak-resident-") as folder:
        run, results = Path(folder, "run"), Path(folder, "results")
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            read_episodes(shards, Path(folder, "read"))
            assert train.main([*train_command(shards, run)[2:], "--tasks", "8"]) == 0
            assert evaluate([*evaluate_command(shards, run, results)[3:], "--tasks", "8"]) == 0
    gc.collect()


def main() -> None:
    for _ in sys.stdin:
        one_pass(Path(sys.argv[1]))
        print("done", flush=True)


if __name__ == "__main__":
    main()
