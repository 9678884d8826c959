"""The CPU time of a step and of the Mahalanobis head, over that of an older commit.

    git worktree add ../before COMMIT                     compiled modules, if any, are copied by hand
    python -m benchmarks.step_before --before ../before

Simple CNAPs, EfficientNet-B0 with random weights, 84 px, 500 support images and 500 queries, 50 classes of 22 sizes,
one core. Both versions stay in memory, each in a process of its own, and take turns; a ratio is that of one turn.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import Any, Final

from benchmarks.common import ROOT, TableRow, describe_run, git_output, markdown_table
from learners.study.report import StudentInterval

SAME_LOSS: Final = 1e-4  # relative difference of two versions' losses, in float32


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPair:
    """A request to the older version and one to this."""

    title: str
    before: dict[str, Any]
    now: dict[str, Any]
    repeats: int = 1
    """In each turn, one after the other."""
    wanted: float
    """The largest ratio that was asked for; both versions should have the same loss."""


def step_pairs(query_h: int) -> list[StepPair]:
    """What is compared; `seed` is the draw's, `chunk` the queries that the head sees at a time."""
    exact: dict[str, Any] = {"what": "step", "seed": 0, "settings": {}}
    drawn = {**exact, "settings": {"query_h": query_h}}
    head = {"what": "head", "chunk": 40}
    return [
        StepPair(title="step, all queries", before=exact, now=exact, wanted=0.95),
        StepPair(title=f"step, --query-h {query_h}", before=exact, now=drawn, wanted=0.75),
        StepPair(title="head, forward and backward", before=head, now=head, wanted=0.5, repeats=5),
    ]


class StepServer:
    """A process with one version of the code."""

    def __init__(self, folder: Path, words: Sequence[str]) -> None:
        command = [sys.executable, str(ROOT / "benchmarks" / "step_server.py"), *words]
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> StepServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # its input ends, and so does it

    def ask(self, request: dict[str, Any]) -> dict[str, float]:
        """The answer to a request."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(self._process.stdout.readline())
        return answer


def compare(pairs: Sequence[StepPair], before: StepServer, now: StepServer, rounds: int) -> list[TableRow]:
    """Ask both versions in turns; the first turn of each is not counted."""
    spent: dict[str, list[tuple[float, float]]] = {pair.title: [] for pair in pairs}
    for turn in range(rounds + 1):
        for pair in chain.from_iterable(repeat(pair, pair.repeats) for pair in pairs):
            asked = [(before, pair.before), (now, pair.now)]
            answers = [server.ask(request) for server, request in (asked if turn % 2 else asked[::-1])]
            old, new = answers if turn % 2 else answers[::-1]
            if not math.isclose(old["loss"], new["loss"], rel_tol=SAME_LOSS):
                raise SystemExit(f"{pair.title}: the loss was {old['loss']} and is {new['loss']}")
            print(turn, pair.title, old, new, file=sys.stderr, flush=True)
            if turn:
                spent[pair.title].append((old["cpu"], new["cpu"]))
    return [_ratio_row(pair, spent[pair.title]) for pair in pairs]


def _ratio_row(pair: StepPair, turns: Sequence[tuple[float, float]]) -> TableRow:
    logs = StudentInterval.of([math.log(new / old) for old, new in turns])
    olds, news = zip(*turns, strict=True)
    ratio = statistics.median(new / old for old, new in turns)
    return {
        "": pair.title, "before, CPU s": statistics.median(olds), "now, CPU s": statistics.median(news),
        "ratio": f"{ratio:.3f}", "95 %": f"{math.exp(logs.low):.3f} to {math.exp(logs.high):.3f}",
        "wanted": f"at most {pair.wanted}",
    }  # fmt: skip


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        "--before", type=Path, required=True, metavar="FOLDER", help="a checkout of the older commit"
    )
    parser.add_argument("--now", type=Path, default=ROOT, metavar="FOLDER", help="(this one)")
    parser.add_argument("--rounds", type=int, default=8, help="(8)")
    parser.add_argument("--query-h", type=int, default=100, help="(100)")
    parser.add_argument("--size", type=int, default=84, help="pixels (84)")
    parser.add_argument("--n", type=int, default=500, help="support images, and queries (500)")
    parser.add_argument("--way", type=int, default=50, help="(50)")
    parser.add_argument("--backbone", default="efficientnet_b0", help="(efficientnet_b0)")
    flags = parser.parse_args()
    words = [str(flags.size), str(flags.n), str(flags.way), flags.backbone]
    with StepServer(flags.before.resolve(), words) as before, StepServer(flags.now.resolve(), words) as now:
        rows = compare(step_pairs(flags.query_h), before, now, flags.rounds)
    commit = git_output("-C", str(flags.before.resolve()), "rev-parse", "--short", "HEAD")
    print(f"{describe_run('benchmarks.step_before', f'before {commit}')}\n\n{markdown_table(rows)}")


if __name__ == "__main__":
    main()
